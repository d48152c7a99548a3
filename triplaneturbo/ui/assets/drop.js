  // A GLB that is dropped anywhere on the page restores its settings, instead of replacing the page.
  const holdsFiles = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
  document.addEventListener("dragover", (event) => { if (holdsFiles(event)) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    if (!holdsFiles(event) || event.defaultPrevented) return;
    event.preventDefault();
    window.ttDropped = event.dataTransfer.files[0];
    document.querySelector("#dropped-file").click();
  });
