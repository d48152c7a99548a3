async (key, _, other) => {
  const picker = document.createElement("input");
  picker.type = "file";
  picker.accept = __SUFFIXES__;
  const file = await new Promise((done) => {
    picker.onchange = () => done(picker.files[0]);
    picker.oncancel = () => done(null);
    picker.click();
  });
  if (!file) return [key, "", other];
  if (file.size > __MAX_BYTES__) return [key, __TOO_LARGE__, other];
  try {
    const response = await fetch(new URL(__ROUTE__, document.baseURI), {
      method: "POST",
      headers: { "x-key": key, "x-name": encodeURIComponent(file.name) },
      body: file,
    });
    const body = await response.json();
    return [key, response.ok ? "uploaded" : String(body.detail), other];
  } catch (error) {
    return [key, "The upload failed. Try again.", other];
  }
}
