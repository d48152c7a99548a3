  // Augmented reality: Quick Look opens a USDZ on Apple devices, Scene Viewer a GLB on Android.
  const onApple = /iPhone|iPad|iPod/.test(navigator.userAgent)
    || (navigator.platform === "MacIntel" && navigator.maxTouchPoints > 1);
  const onAndroid = /Android/.test(navigator.userAgent);
  const served = (path) => {
    const { root, api_prefix } = window.gradio_config;
    const file = path.split("/").map(encodeURIComponent).join("/");
    return new URL(`${root}${api_prefix}/file=${file}`, document.baseURI).href;
  };
  const arLink = (stem) => {
    const link = document.createElement("a");
    if (onApple) {
      link.rel = "ar";
      link.href = served(`${stem}.usdz`);
      // Quick Look opens links whose only child is an image, so that the words are an image, too.
      const image = document.createElement("img");
      image.alt = __VIEW__;
      image.src = "data:image/svg+xml," + encodeURIComponent(
        '<svg xmlns="http://www.w3.org/2000/svg" width="240" height="30"><text x="120" y="22" fill="#fff"'
        + ` font-family="sans-serif" font-size="20" font-weight="600" text-anchor="middle">${__VIEW__}</text></svg>`);
      link.append(image);
    } else {
      const glb = new URL(served(`${stem}.glb`));
      link.href = `intent://arvr.google.com/scene-viewer/1.0?file=${encodeURIComponent(glb.href)}&mode=ar_preferred`
        + "#Intent;scheme=https;package=com.google.ar.core;action=android.intent.action.VIEW;end;";
    }
    return link;
  };
  window.ttAr = {
    // The link that a QR code holds, or null where this device shows the object itself.
    open(stem) {
      if (onApple || onAndroid) {
        arLink(stem).click();
        return null;
      }
      return new URL(`?ar=${encodeURIComponent(stem)}`, document.baseURI).href;
    },
  };
  // A phone that has scanned the code gets one large link, as a page may open no other app by itself.
  const scanned = new URLSearchParams(location.search).get("ar");
  if (scanned && /^[^<>"'?#]+$/.test(scanned)) {
    const cover = document.createElement("div");
    cover.id = "ar-cover";
    const link = arLink(scanned);
    if (onAndroid) {
      link.append(__VIEW__);
    } else if (!onApple) {
      link.href = served(`${scanned}.glb`);
      link.append(__DOWNLOAD__);
    }
    const close = document.createElement("button");
    close.append(__CLOSE__);
    close.onclick = () => cover.remove();
    cover.append(link, close);
    document.body.append(cover);
  }
