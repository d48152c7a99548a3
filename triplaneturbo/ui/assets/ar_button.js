(stem) => [stem ? window.ttAr.open(stem) : ""]
