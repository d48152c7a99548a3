async (key) => {
  const link = new URL(`?${__PARAMETER__}=${encodeURIComponent(key)}`, document.baseURI).href;
  try {
    await navigator.clipboard.writeText(link);
    return [__COPIED__];
  } catch (refused) {  // a page from another machine without https has no clipboard
    window.prompt(__LABEL__, link);
    return [{ __type__: "update" }];
  }
}
