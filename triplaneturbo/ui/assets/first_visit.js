  // A click on a picture in the empty viewer generates its prompt, as if it had been typed.
  document.addEventListener("click", (event) => {
    const picture = event.target.closest && event.target.closest(".tt-first");
    if (!picture) return;
    const prompt = document.querySelector("#prompt textarea");
    prompt.value = picture.dataset.prompt;
    prompt.dispatchEvent(new Event("input", { bubbles: true }));
    // After Gradio has read the prompt.
    setTimeout(() => document.querySelector("#generate").click(), 60);
  });
