//! The pixels of a triangle.

/// Calls `paint` with every pixel of a square picture, `side` pixels a side, whose centre lies in the
/// triangle of these corners (x to the right, y down, in pixels), and with the shares of the corners
/// there.
pub fn for_each_pixel(side: usize, corners: [[f64; 2]; 3], mut paint: impl FnMut(usize, usize, [f64; 3])) {
    let [a, b, c] = corners;
    let area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
    if area.abs() < 1e-12 {
        return;
    }
    let limit = side as f64 - 1.0;
    let range = |axis: usize| {
        let low = a[axis].min(b[axis]).min(c[axis]);
        let high = a[axis].max(b[axis]).max(c[axis]);
        ((low - 0.5).ceil().clamp(0.0, limit) as usize, (high - 0.5).floor().clamp(0.0, limit) as usize)
    };
    let ((left, right), (top, bottom)) = (range(0), range(1));
    for y in top..=bottom {
        for x in left..=right {
            let (px, py) = (x as f64 + 0.5, y as f64 + 0.5);
            let v = ((px - a[0]) * (c[1] - a[1]) - (py - a[1]) * (c[0] - a[0])) / area;
            let w = ((b[0] - a[0]) * (py - a[1]) - (b[1] - a[1]) * (px - a[0])) / area;
            let u = 1.0 - v - w;
            // A tiny overlap closes the cracks between neighbours.
            if u >= -1e-9 && v >= -1e-9 && w >= -1e-9 {
                paint(x, y, [u, v, w]);
            }
        }
    }
}
