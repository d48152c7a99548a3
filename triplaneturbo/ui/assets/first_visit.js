  // A click on a picture in the empty viewer generates its prompt, as if it had been typed.
  document.addEventListener("click", (event) => {
    const picture = event.target.closest && event.target.closest(".tt-first");
    if (!picture) return;
    for (const [place, words] of [["#prompt", picture.dataset.prompt], ["#look", ""]]) {
      const field = document.querySelector(`${place} textarea`);
      field.value = words;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    }
    // While Live is on, the input generates already. Otherwise the button does, after Gradio has read the fields.
    if (document.querySelector("#live input").checked) return;
    setTimeout(() => document.querySelector("#generate").click(), 60);
  });
