() => {
  // include live.js
  // include first_visit.js
  // include viewer.js
}
