async () => {
  const unchanged = [null];
  const dropped = window.ttDropped;
  window.ttDropped = undefined;
  const pick = () => new Promise((done) => {
    const picker = document.createElement("input");
    picker.type = "file";
    picker.accept = ".glb";
    picker.onchange = () => done(picker.files[0]);
    picker.oncancel = () => done(null);
    picker.click();
  });
  const file = dropped || await pick();
  if (!file) return unchanged;
  // Only the settings are sent to the server: the file stays in the browser, where its JSON chunk is read.
  try {
    const head = new DataView(await file.slice(0, 20).arrayBuffer());
    const [magic, version, , length, kind] = [0, 4, 8, 12, 16].map((at) => head.getUint32(at, true));
    if (magic !== 0x46546C67 || version !== 2 || kind !== 0x4E4F534A || length > __MAX_JSON__) return [""];
    const text = JSON.stringify(JSON.parse(await file.slice(20, 20 + length).text()).asset.extras[__KEY__]);
    return [text === undefined || text.length > __MAX_BYTES__ ? "" : text];
  } catch (error) {
    return [""];
  }
}
