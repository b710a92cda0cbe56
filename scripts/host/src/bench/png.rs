//! Plots as PNG, for papers and slides that take no SVG. The font comes with the tool, so that a plot looks the same on every machine.

use anyhow::Context as _;
use resvg::tiny_skia::{Color, Pixmap, Transform};
use resvg::usvg::{Options, Tree};

/// Pixels for each unit of the drawing.
const SCALE: f32 = 2.0;
const FONT: &str = "DejaVu Sans";

/// Draws pictures; it holds the font.
pub(super) struct Painter {
    options: Options<'static>,
}

impl Painter {
    /// With the font loaded.
    pub(super) fn new() -> Self {
        let mut options = Options { font_family: FONT.into(), ..Options::default() };
        let fonts = options.fontdb_mut();
        fonts.load_font_data(dejavu::sans::regular().to_vec());
        fonts.set_sans_serif_family(FONT);
        Self { options }
    }

    /// An SVG picture as the bytes of a PNG file.
    ///
    /// # Errors
    /// If it is no SVG.
    pub(super) fn png(&self, svg: &str) -> anyhow::Result<Vec<u8>> {
        let tree = Tree::from_str(svg, &self.options).context("a plot is no SVG")?;
        let size = tree.size().to_int_size().scale_by(SCALE).context("a plot without size")?;
        let mut picture = Pixmap::new(size.width(), size.height()).context("a plot without size")?;
        picture.fill(Color::WHITE);
        resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut picture.as_mut());
        picture.encode_png().context("writing a PNG")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"120\" height=\"40\"><rect width=\"120\" height=\"40\" fill=\"#fff\"/>";

    fn draw(content: &str) -> Pixmap {
        let png = Painter::new().png(&format!("{FRAME}{content}</svg>")).unwrap();
        Pixmap::decode_png(&png).unwrap()
    }

    fn dark(picture: &Pixmap) -> usize {
        picture.pixels().iter().filter(|pixel| pixel.red() < 100).count()
    }

    #[test]
    fn a_picture_has_twice_the_size_and_its_marks() {
        let picture = draw("<rect x=\"10\" y=\"10\" width=\"20\" height=\"10\" fill=\"#000\"/>");
        assert_eq!((picture.width(), picture.height()), (240, 80));
        assert_eq!(dark(&picture), 40 * 20);
    }

    #[test]
    fn text_is_drawn_without_fonts_of_the_system() {
        assert_eq!(dark(&draw("")), 0);
        let picture =
            draw("<text x=\"5\" y=\"25\" font-family=\"sans-serif\" font-size=\"17\" fill=\"#000\">cr3_64</text>");
        assert!(dark(&picture) > 200, "{}", dark(&picture));
    }

    #[test]
    fn what_is_no_svg_is_an_error() {
        assert!(Painter::new().png("<html>").is_err());
    }
}
