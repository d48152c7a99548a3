(token) => {
  const address = new URL(location.href), key = address.searchParams.get(__PARAMETER__);
  if (key !== null) {  // opened once: after a reload the page is as usual
    address.searchParams.delete(__PARAMETER__);
    window.history.replaceState(window.history.state, "", address);
  }
  return [token, key];
}
