  // While Live is on, a pause in typing generates, as the button does. Enter cancels the pending pause.
  let timer = 0;
  const inPrompt = (event) => event.target.closest && event.target.closest("#prompt, #look");
  document.addEventListener("input", (event) => {
    if (!inPrompt(event)) return;
    clearTimeout(timer);
    if (!document.querySelector("#live input").checked) return;
    timer = setTimeout(() => document.querySelector("#live-go").click(), 250);
  });
  document.addEventListener("keydown", (event) => {
    if (inPrompt(event) && event.key === "Enter") clearTimeout(timer);
  }, true);
