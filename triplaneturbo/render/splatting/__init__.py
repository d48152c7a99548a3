"""Splatting of 3D Gaussians: `rasterizer.rasterize_gaussians`, in torch or with gsplat."""
