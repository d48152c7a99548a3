() => {
  // include live.js
  // include viewer.js
}
