() => {
  // include live.js
  // include first_visit.js
  // include viewer.js
  // include drop.js
  // include ar.js
}
