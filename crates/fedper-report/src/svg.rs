//! A small SVG writer.
//!
//! Attributes only, no style sheet: a figure must look the same in a browser, in Inkscape and in a LaTeX tool chain.

use std::fmt::Write as _;

use super::text::{decimal, escape};

/// The figures' fonts; the widths in [`super::text::width`] are theirs.
pub(super) const FONTS: &str = "Helvetica, Arial, 'Liberation Sans', 'Nimbus Sans', sans-serif";
/// Size of all text in a figure but notes, in its own unit (a figure is 400 wide, so 7 pt in an 85 mm column).
pub(super) const SIZE: f64 = 11.0;
/// Colour of text.
pub(super) const INK: &str = "#222222";
/// Colour of text that steps back.
pub(super) const FAINT: &str = "#5f5f5f";

/// Where a text's given point lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a text is set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Type<'a> {
    pub(super) anchor: Anchor,
    pub(super) colour: &'a str,
    pub(super) bold: bool,
    pub(super) size: f64,
    /// Turned by a quarter to the left about its point.
    pub(super) upright: bool,
}

impl Default for Type<'_> {
    fn default() -> Self {
        Self { anchor: Anchor::Start, colour: INK, bold: false, size: SIZE, upright: false }
    }
}

/// A drawing under way.
#[derive(Debug)]
pub(super) struct Svg {
    width: f64,
    height: f64,
    body: String,
}

/// A coordinate: a tenth of a unit is finer than print.
pub(super) fn n(value: f64) -> String {
    decimal(value, 1)
}

impl Svg {
    pub(super) fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    pub(super) fn text(&mut self, x: f64, y: f64, text: &str, how: Type<'_>) {
        let anchor = match how.anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let size =
            if how.size == SIZE { String::new() } else { format!(" font-size=\"{}\"", decimal(how.size, 2)) };
        let weight = if how.bold { " font-weight=\"bold\"" } else { "" };
        let fill = if how.colour == INK { String::new() } else { format!(" fill=\"{}\"", how.colour) };
        let turn =
            if how.upright { format!(" transform=\"rotate(-90 {} {})\"", n(x), n(y)) } else { String::new() };
        let _ = writeln!(
            self.body,
            "<text x=\"{}\" y=\"{}\"{anchor}{size}{weight}{fill}{turn}>{}</text>",
            n(x),
            n(y),
            escape(text)
        );
    }

    pub(super) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str, width: f64) {
        let _ = writeln!(
            self.body,
            "<path d=\"M{} {}L{} {}\" stroke=\"{colour}\" stroke-width=\"{}\"/>",
            n(x1),
            n(y1),
            n(x2),
            n(y2),
            decimal(width, 2)
        );
    }

    /// A line through points; `dash` as in `stroke-dasharray`, empty for a solid line.
    pub(super) fn polyline(
        &mut self,
        points: &[(f64, f64)],
        colour: &str,
        width: f64,
        dash: &str,
        opacity: f64,
    ) {
        if points.len() < 2 {
            return;
        }
        let dash = if dash.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dash}\"") };
        let opacity = if opacity < 1.0 { format!(" stroke-opacity=\"{opacity}\"") } else { String::new() };
        let cap = if dash.is_empty() { " stroke-linecap=\"round\"" } else { "" };
        let _ = writeln!(
            self.body,
            "<path d=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{}\" stroke-linejoin=\"round\"{cap}{dash}{opacity}/>",
            path(points),
            decimal(width, 2),
        );
    }

    /// A filled area within the points.
    pub(super) fn area(&mut self, points: &[(f64, f64)], colour: &str, opacity: f64) {
        if points.len() > 2 {
            let _ = writeln!(
                self.body,
                "<path d=\"{}Z\" fill=\"{colour}\" fill-opacity=\"{opacity}\"/>",
                path(points)
            );
        }
    }

    pub(super) fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, fill: &str) {
        let _ = writeln!(
            self.body,
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{fill}\"/>",
            n(x),
            n(y),
            n(width),
            n(height)
        );
    }

    /// An element given by its start (`<circle r="2"`), with a tooltip.
    pub(super) fn shape(&mut self, start: &str, tooltip: &str) {
        let _ = if tooltip.is_empty() {
            writeln!(self.body, "{start}/>")
        } else {
            let name = start.trim_start_matches('<').split(' ').next().unwrap_or_default();
            writeln!(self.body, "{start}><title>{}</title></{name}>", escape(tooltip))
        };
    }

    /// The drawing as a part of another, with its upper left corner at `(x, y)`.
    pub(super) fn place(&mut self, part: &Self, x: f64, y: f64) {
        let _ = write!(self.body, "<g transform=\"translate({} {})\">\n{}</g>\n", n(x), n(y), part.body);
    }

    /// Width and height.
    pub(super) fn size(&self) -> (f64, f64) {
        (self.width, self.height)
    }

    /// The whole document. `id` must be unique among the figures of one page.
    pub(super) fn finish(self, id: &str, title: &str, description: &str) -> String {
        let (width, height) = (n(self.width.ceil()), n(self.height.ceil()));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
             role=\"img\" aria-labelledby=\"{id}-title {id}-desc\" font-family=\"{FONTS}\" font-size=\"{SIZE}\" fill=\"{INK}\">\n\
             <title id=\"{id}-title\">{}</title>\n<desc id=\"{id}-desc\">{}</desc>\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n{}</svg>\n",
            escape(title),
            escape(description),
            self.body
        )
    }
}

fn path(points: &[(f64, f64)]) -> String {
    let mut out = String::with_capacity(points.len() * 12);
    for (i, &(x, y)) in points.iter().enumerate() {
        let _ = write!(out, "{}{} {}", if i == 0 { "M" } else { "L" }, n(x), n(y));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_is_well_formed_whatever_its_texts_say() {
        let mut svg = Svg::new(100.0, 50.5);
        svg.text(1.0, 2.0, "</text><script>", Type { upright: true, ..Type::default() });
        svg.shape("<circle cx=\"1\" cy=\"1\" r=\"2\"", "a & b");
        svg.polyline(&[(0.0, 0.0), (1.04, 2.06)], "#000000", 1.5, "2 2", 0.5);
        let text = svg.finish("fig", "T<", "D>");
        let tree = roxmltree::Document::parse(&text).unwrap();
        let root = tree.root_element();
        assert_eq!(root.attribute("viewBox"), Some("0 0 100 51"));
        let words: Vec<_> = tree.descendants().filter(|e| e.has_tag_name("text")).map(|e| e.text()).collect();
        assert_eq!(words, [Some("</text><script>")]);
        assert!(text.contains("M0 0L1 2.1"));
        assert_eq!(tree.descendants().filter(|e| e.has_tag_name("title")).count(), 2);
    }
}
