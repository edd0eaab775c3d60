//! An SVG figure as PNG, for slides and for readers that do not show SVG.
//!
//! `resvg` draws it. Its texts are set in Roboto (Google, Apache-2.0; a subset of Latin and Greek letters), which is part
//! of the program: the picture is the same on every machine, also where no font is installed.

use std::sync::{Arc, LazyLock};

use resvg::{tiny_skia, usvg};

const REGULAR: &[u8] = include_bytes!("font/Roboto-Regular.ttf");
const BOLD: &[u8] = include_bytes!("font/Roboto-Bold.ttf");
/// Pixels to a unit of the figure.
const SCALE: f32 = 2.0;

static FONTS: LazyLock<Arc<usvg::fontdb::Database>> = LazyLock::new(|| {
    let mut fonts = usvg::fontdb::Database::new();
    fonts.load_font_data(REGULAR.to_vec());
    fonts.load_font_data(BOLD.to_vec());
    fonts.set_sans_serif_family("Roboto");
    Arc::new(fonts)
});

/// The bytes of a PNG file of `svg`, at two pixels to a unit.
///
/// # Panics
/// If `svg` is not one of this program's figures.
pub fn render(svg: &str) -> Vec<u8> {
    let options = usvg::Options { fontdb: FONTS.clone(), ..usvg::Options::default() };
    let tree = usvg::Tree::from_str(svg, &options).expect("a figure is an SVG document");
    let size = tree.size().to_int_size().scale_by(SCALE).expect("a figure has an area");
    let mut picture = tiny_skia::Pixmap::new(size.width(), size.height()).expect("a figure has an area");
    resvg::render(&tree, tiny_skia::Transform::from_scale(SCALE, SCALE), &mut picture.as_mut());
    picture.encode_png().expect("a picture in memory can be encoded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_the_figures_size_and_its_text_is_drawn() {
        let svg = |text: &str| {
            format!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"60\" height=\"20\" viewBox=\"0 0 60 20\" \
                 font-family=\"Helvetica, sans-serif\" font-size=\"11\" fill=\"#000000\">\
                 <rect width=\"60\" height=\"20\" fill=\"#ffffff\"/><text x=\"2\" y=\"14\">{text}</text></svg>"
            )
        };
        let dark = |bytes: &[u8]| {
            let picture = tiny_skia::Pixmap::decode_png(bytes).unwrap();
            assert_eq!((picture.width(), picture.height()), (120, 40));
            picture.pixels().iter().filter(|pixel| pixel.red() < 128).count()
        };
        let (none, some, more) =
            (dark(&render(&svg(""))), dark(&render(&svg("k"))), dark(&render(&svg("k = 4 ±"))));
        assert_eq!(none, 0);
        assert!(some > 20 && more > 2 * some, "{some}, {more}");
    }
}
