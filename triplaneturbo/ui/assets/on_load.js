() => {
  // include live.js
  // include viewer.js
  // include drop.js
  // include ar.js
}
