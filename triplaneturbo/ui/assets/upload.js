async (key, _, share) => {
  const picker = document.createElement("input");
  picker.type = "file";
  picker.accept = __SUFFIXES__;
  const file = await new Promise((done) => {
    picker.onchange = () => done(picker.files[0]);
    picker.oncancel = () => done(null);
    picker.click();
  });
  if (!file) return [key, "", share];
  if (file.size > __MAX_BYTES__) return [key, __TOO_LARGE__, share];
  try {
    const response = await fetch(new URL("gradio_api/prompts", document.baseURI), {
      method: "POST",
      headers: { "x-key": key, "x-name": encodeURIComponent(file.name) },
      body: file,
    });
    const body = await response.json();
    return [key, response.ok ? "uploaded" : String(body.detail), share];
  } catch (error) {
    return [key, "The upload failed. Try again.", share];
  }
}
