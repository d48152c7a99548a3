(...values) => {
  // include form_store.js
  write({ names: __NAMES__, values });
}
