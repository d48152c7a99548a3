async (view, viewer) => [await window.ttViewer.show(JSON.parse(view), viewer, __DISTANCE__)]
