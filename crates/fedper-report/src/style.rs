//! What each algorithm looks like, in every figure alike.
//!
//! Colours are Okabe and Ito's, told apart by readers with any colour vision; markers differ in shape as well, for print
//! without colour. FedPer is the subject, so it alone is drawn heavy.

/// The look of one series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Style {
    /// For lines, bands and markers.
    pub(super) colour: &'static str,
    /// For text, dark enough to read on white.
    pub(super) text: &'static str,
    pub(super) width: f64,
    /// As in `stroke-dasharray`; empty for solid.
    pub(super) dash: &'static str,
    pub(super) marker: Marker,
    /// Drawn last and labelled in bold.
    pub(super) prominent: bool,
}

/// The shape of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    Circle,
    Square,
    Diamond,
    Triangle,
}

impl Marker {
    /// The start of an SVG element for the shape about a point, all shapes of about one area.
    pub(super) fn element(self, x: f64, y: f64, radius: f64) -> String {
        use super::svg::n;
        match self {
            Self::Circle => format!("<circle cx=\"{}\" cy=\"{}\" r=\"{}\"", n(x), n(y), n(radius)),
            Self::Square => {
                let a = radius * 0.88;
                format!(
                    "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"",
                    n(x - a),
                    n(y - a),
                    n(2.0 * a),
                    n(2.0 * a)
                )
            }
            Self::Diamond => {
                let a = radius * 1.25;
                format!(
                    "<path d=\"M{} {}L{} {}L{} {}L{} {}Z\"",
                    n(x - a),
                    n(y),
                    n(x),
                    n(y - a),
                    n(x + a),
                    n(y),
                    n(x),
                    n(y + a)
                )
            }
            Self::Triangle => {
                let a = radius * 1.2;
                format!(
                    "<path d=\"M{} {}L{} {}L{} {}Z\"",
                    n(x - a),
                    n(y + 0.75 * a),
                    n(x),
                    n(y - 1.05 * a),
                    n(x + a),
                    n(y + 0.75 * a)
                )
            }
        }
    }
}

const MARKERS: [Marker; 4] = [Marker::Circle, Marker::Square, Marker::Diamond, Marker::Triangle];

/// (for marks, for text)
const COLOURS: [(&str, &str); 8] = [
    ("#0072b2", "#0072b2"), // blue
    ("#d55e00", "#b84f00"), // vermilion
    ("#737373", "#5f5f5f"), // grey
    ("#009e73", "#00795a"), // bluish green
    ("#cc79a7", "#a34a7c"), // reddish purple
    ("#e69f00", "#976800"), // orange
    ("#56b4e9", "#1c7db5"), // sky blue
    ("#000000", "#000000"),
];

const DASHES: [&str; 5] = ["", "6 2.5", "1.8 2", "7 2 1.8 2", "3.5 2"];

/// The algorithms with a look of their own.
const KNOWN: [&str; 4] = ["fedper", "fedavg", "local", "fedavg-ft"];

impl Style {
    /// The look of the algorithm `names[index]`: fixed for those every report is about, the free ones in turn for others.
    pub(super) fn of_algorithm(names: &[&str], index: usize) -> Self {
        let name = names.get(index).copied().unwrap_or_default();
        let place = KNOWN
            .iter()
            .position(|&known| known == name)
            .unwrap_or_else(|| KNOWN.len() + names.iter().take(index).filter(|n| !KNOWN.contains(n)).count());
        Self { prominent: name == "fedper", ..Self::nth(place) }.weighted()
    }

    /// The look of the `index`-th of several runs of one algorithm.
    pub(super) fn of_run(index: usize) -> Self {
        Self::nth(index)
    }

    /// A line of no algorithm in particular.
    pub(super) fn plain() -> Self {
        Self::nth(COLOURS.len() - 1)
    }

    /// The same for the `index`-th of several runs.
    pub(super) fn dashed(self, index: usize) -> Self {
        Self { dash: DASHES[index % DASHES.len()], ..self }
    }

    fn nth(place: usize) -> Self {
        let (colour, text) = COLOURS[place % COLOURS.len()];
        let dash = DASHES[place / COLOURS.len() % DASHES.len()];
        Self { colour, text, width: 1.5, dash, marker: MARKERS[place % MARKERS.len()], prominent: false }
    }

    fn weighted(self) -> Self {
        Self { width: if self.prominent { 2.4 } else { 1.4 }, ..self }
    }
}

/// How a paper writes the algorithm: where it is not as here, with capitals for `fed` and for what is behind it.
pub(super) fn display_name(algorithm: &str) -> String {
    let known = match algorithm {
        "fedavg-ft" => "FedAvg-FT",
        "fedbn" => "FedBN",
        "lgfedavg" => "LG-FedAvg",
        "scaffold" => "SCAFFOLD",
        "apfl" => "APFL",
        "ifca" => "IFCA",
        _ => "",
    };
    if !known.is_empty() {
        return known.to_owned();
    }
    match algorithm.strip_prefix("fed") {
        Some(rest) if !rest.is_empty() => format!("Fed{}", capital(rest)),
        _ => capital(algorithm),
    }
}

fn capital(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithms_are_told_apart_and_fedper_stands_out() {
        let names = ["fedper", "ditto", "fedavg", "local", "fedrep", "fedavg-ft", "apfl", "x"];
        let styles: Vec<Style> = (0..names.len()).map(|i| Style::of_algorithm(&names, i)).collect();
        for (i, a) in styles.iter().enumerate() {
            assert_eq!(a.prominent, i == 0);
            assert!(i == 0 || a.width < styles[0].width);
            for b in &styles[..i] {
                assert_ne!(a.colour, b.colour);
            }
        }
    }

    #[test]
    fn an_algorithm_looks_the_same_whatever_it_is_compared_with() {
        assert_eq!(
            Style::of_algorithm(&["local", "fedavg"], 1),
            Style::of_algorithm(&["fedper", "x", "fedavg"], 2)
        );
    }

    #[test]
    fn names_are_written_as_papers_do() {
        let names = ["fedper", "fedavg", "fedavg-ft", "local", "fedrep", "ditto", "scaffold", "mine", "fed"];
        let written = names.map(display_name);
        assert_eq!(
            written.each_ref().map(String::as_str),
            ["FedPer", "FedAvg", "FedAvg-FT", "Local", "FedRep", "Ditto", "SCAFFOLD", "Mine", "Fed"]
        );
    }

    #[test]
    fn more_runs_than_colours_differ_by_dash() {
        assert_eq!(Style::of_run(0).colour, Style::of_run(8).colour);
        assert_ne!(Style::of_run(0).dash, Style::of_run(8).dash);
    }
}
