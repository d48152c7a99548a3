(view) => {
  let path = "";
  try { path = JSON.parse(view).path; } catch (nothing) { /* no mesh yet */ }
  return [path ? window.ttAr.open(path.replace(/\.glb$/, "")) : ""];
}
