//! Who holds which classes: a circle for each device and class where there are few, else a heat map.

use fedper_records::ClassCounts;

use super::super::read::RunData;
use super::super::series::Comparison;
use super::super::svg::{Anchor, FAINT, SIZE, Svg, Type, n};
use super::super::text::{counted, grouped, shorten, width};
use super::super::{axis, chart};
use super::{Figure, empty};

const NAME: &str = "partition";
const HEADING: &str = "Who holds which classes";
const CIRCLES: (usize, usize) = (32, 26);
const MOST_DEVICES: usize = 200;
const MOST_CLASSES: usize = 200;
const MOST_CELLS: usize = 10_000;
const TITLE: f64 = 16.0;
const FILL: &str = "#0072b2";
/// From little to much: one hue, darker with more, readable in grey.
const SHADES: [&str; 7] = ["#dcecf6", "#b5d6eb", "#84bcde", "#4f9dcc", "#1f7db5", "#085c93", "#033f6b"];

pub(super) fn figure(of: &Comparison<'_>) -> Figure {
    let with_one = |run: &&RunData| run.partition.as_ref().is_some_and(|p| !p.devices.is_empty());
    let Some((place, run)) = of.runs.iter().enumerate().find(|(_, run)| with_one(run)) else {
        return empty(NAME, HEADING, ("Device", "Class"), "The partition is not known yet.");
    };
    let Some(partition) = &run.partition else {
        return empty(NAME, HEADING, ("Device", "Class"), "The partition is not known yet.");
    };
    let table = Table::of(partition);
    if table.classes.is_empty() || table.most == 0 {
        return empty(NAME, HEADING, ("Device", "Class"), "The devices hold no labelled training samples.");
    }
    let circles = table.fits_circles();
    let mut caption = format!(
        "Training samples of each class ({}) on each device: {}.",
        partition.dataset,
        if circles { "the circle's area is their number" } else { "darker is more, white is none" }
    );
    if table.shown < partition.devices.len() {
        let all = counted(partition.devices.len(), "device");
        caption.push_str(&format!(" The first {} of {all}.", grouped(table.shown as u64)));
    }
    if table.classes.len() < table.all_classes {
        caption.push_str(&format!(
            " The first {} of {} classes.",
            table.classes.len(),
            grouped(table.all_classes as u64)
        ));
    }
    if of.runs.iter().any(|other| other.partition.is_some() && other.partition != run.partition) {
        caption.push_str(&format!(" The partition of run {}; other runs have others.", of.names[place]));
    }
    Figure { name: NAME, heading: HEADING, caption, svg: draw(&table, partition) }
}

/// The figure of one partition alone.
pub(crate) fn alone(partition: &ClassCounts) -> String {
    draw(&Table::of(partition), partition)
}

fn draw(table: &Table, partition: &ClassCounts) -> String {
    let svg = if table.fits_circles() { draw_circles(table) } else { draw_cells(table) };
    let description = format!(
        "{} and {} classes; {} per device on average; at most {} samples of one class on one device.",
        counted(partition.devices.len(), "device"),
        grouped(table.all_classes as u64),
        per_device(partition),
        grouped(u64::from(table.most))
    );
    svg.finish(NAME, HEADING, &description)
}

fn per_device(partition: &ClassCounts) -> String {
    let held: usize =
        partition.devices.iter().map(|d| d.train_classes.iter().filter(|&&count| count > 0).count()).sum();
    format!("{:.1} classes", held as f64 / partition.devices.len().max(1) as f64)
}

/// What is drawn of a partition.
struct Table {
    devices: Vec<u64>,
    /// By class, then by device.
    counts: Vec<Vec<u32>>,
    classes: Vec<String>,
    shown: usize,
    /// How many classes there are, shown or not.
    all_classes: usize,
    most: u32,
}

impl Table {
    fn fits_circles(&self) -> bool {
        self.shown <= CIRCLES.0 && self.classes.len() <= CIRCLES.1
    }

    fn of(partition: &ClassCounts) -> Self {
        let labels = partition.devices.iter().map(|d| d.train_classes.len()).max().unwrap_or(0);
        let all_classes = labels.max(partition.classes.len());
        let count = all_classes.min(MOST_CLASSES);
        let classes: Vec<String> = (0..count)
            .map(|label| partition.classes.get(label).cloned().unwrap_or_else(|| format!("class {label}")))
            .collect();
        let shown = partition.devices.len().min(MOST_DEVICES).min((MOST_CELLS / count.max(1)).max(10));
        let devices = &partition.devices[..shown];
        let counts: Vec<Vec<u32>> = (0..count)
            .map(|label| devices.iter().map(|d| d.train_classes.get(label).copied().unwrap_or(0)).collect())
            .collect();
        let most = counts.iter().flatten().copied().max().unwrap_or(0);
        Self {
            devices: devices.iter().map(|d| d.device).collect(),
            counts,
            classes,
            shown,
            all_classes,
            most,
        }
    }
}

/// Where the cells lie.
struct Grid {
    left: f64,
    top: f64,
    column: f64,
    row: f64,
    columns: usize,
    rows: usize,
    /// Width of the longest class name.
    names: f64,
}

impl Grid {
    fn new(table: &Table, top: f64, row: f64, widest_column: f64) -> Self {
        // Names may take what the columns leave.
        let limit = (chart::COLUMN - 40.0 - 20.0 * table.devices.len() as f64).clamp(104.0, 170.0);
        let names = table.classes.iter().map(|c| width(c, SIZE, false)).fold(0.0, f64::max).min(limit);
        let left = 4.0 + TITLE + names + 7.0;
        let columns = table.devices.len();
        let column = ((chart::COLUMN - left - 10.0) / columns as f64).min(widest_column);
        Self { left, top, column, row, columns, rows: table.classes.len(), names }
    }

    fn centre(&self, device: usize, class: usize) -> (f64, f64) {
        (self.left + (device as f64 + 0.5) * self.column, self.top + (class as f64 + 0.5) * self.row)
    }

    fn right(&self) -> f64 {
        self.left + self.column * self.columns as f64
    }

    fn bottom(&self) -> f64 {
        self.top + self.row * self.rows as f64
    }

    fn height(&self) -> f64 {
        self.bottom() + 18.0 + 15.0 + 5.0
    }

    /// Names of classes and devices, as many as there is room for, and the axes' titles.
    fn names(&self, svg: &mut Svg, table: &Table) {
        let every = (12.0 / self.row).ceil().max(1.0) as usize;
        for (class, name) in table.classes.iter().enumerate().filter(|(c, _)| c.is_multiple_of(every)) {
            let (_, y) = self.centre(0, class);
            let name = shorten(name, self.names, SIZE, false);
            let how = Type { anchor: Anchor::End, ..Type::default() };
            svg.text(self.left - 6.0, y + SIZE * 0.36, &name, how);
        }
        let widest = table.devices.iter().map(|d| width(&d.to_string(), SIZE, false)).fold(0.0, f64::max);
        let room = axis::nice_step((widest + 7.0) / self.column, 1.0).max(1.0) as usize;
        for (place, device) in table.devices.iter().enumerate().filter(|(p, _)| p.is_multiple_of(room)) {
            let (x, _) = self.centre(place, 0);
            let how = Type { anchor: Anchor::Middle, ..Type::default() };
            svg.text(x, self.bottom() + 4.0 + SIZE, &device.to_string(), how);
        }
        let how = Type { anchor: Anchor::Middle, ..Type::default() };
        svg.text((self.left + self.right()) / 2.0, self.bottom() + 30.0, "Device", how);
        let how = Type { upright: true, ..how };
        svg.text(4.0 + SIZE * 0.8, (self.top + self.bottom()) / 2.0, "Class", how);
    }
}

fn draw_circles(table: &Table) -> Svg {
    let row = 17.0;
    let grid = Grid::new(table, 34.0, row, 26.0);
    let biggest = grid.column.min(row) / 2.0 - 0.6;
    let radius = |count: f64| (count / f64::from(table.most)).sqrt() * biggest;
    let mut svg = Svg::new(chart::COLUMN, grid.height());
    for class in 0..grid.rows {
        let y = grid.centre(0, class).1;
        svg.line((grid.left, y), (grid.right(), y), "#eeeeee", 0.8);
    }
    for device in 0..grid.columns {
        let x = grid.centre(device, 0).0;
        svg.line((x, grid.top), (x, grid.bottom()), "#eeeeee", 0.8);
    }
    for (class, counts) in table.counts.iter().enumerate() {
        for (device, &count) in counts.iter().enumerate().filter(|&(_, &count)| count > 0) {
            let (x, y) = grid.centre(device, class);
            let r = radius(f64::from(count)).max(0.8);
            let start = format!(
                "<circle cx=\"{}\" cy=\"{}\" r=\"{r:.2}\" fill=\"{FILL}\" fill-opacity=\"0.85\"",
                n(x),
                n(y)
            );
            let tooltip =
                format!("Device {}, {}: {count} samples", table.devices[device], table.classes[class]);
            svg.shape(&start, &tooltip);
        }
    }
    let mut x = grid.left;
    let how = Type { colour: FAINT, ..Type::default() };
    svg.text(x, 14.0 + SIZE * 0.36, "Training samples:", how);
    x += width("Training samples:", SIZE, false) + 10.0;
    for count in reference_counts(table.most) {
        let r = radius(f64::from(count));
        svg.shape(
            &format!(
                "<circle cx=\"{}\" cy=\"14\" r=\"{r:.2}\" fill=\"{FILL}\" fill-opacity=\"0.85\"",
                n(x + r)
            ),
            "",
        );
        let label = grouped(u64::from(count));
        svg.text(x + 2.0 * r + 4.0, 14.0 + SIZE * 0.36, &label, how);
        x += 2.0 * r + 4.0 + width(&label, SIZE, false) + 12.0;
    }
    grid.names(&mut svg, table);
    svg
}

/// Round numbers up to the greatest count, for the key.
fn reference_counts(most: u32) -> Vec<u32> {
    let top = f64::from(most);
    let decade = 10f64.powf(top.log10().floor());
    let big = [5.0, 2.0, 1.0].into_iter().map(|m| m * decade).find(|&v| v <= top).unwrap_or(1.0) as u32;
    let mut counts = vec![big / 5, big];
    counts.retain(|&count| count > 0);
    counts.dedup();
    counts
}

fn draw_cells(table: &Table) -> Svg {
    let row = (240.0 / table.classes.len() as f64).clamp(2.6, 15.0);
    let grid = Grid::new(table, 36.0, row, 26.0);
    let mut svg = Svg::new(chart::COLUMN, grid.height());
    let frame = format!(
        "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"#bbbbbb\" stroke-width=\"0.8\"",
        n(grid.left),
        n(grid.top),
        n(grid.right() - grid.left),
        n(grid.bottom() - grid.top)
    );
    svg.shape(&frame, "");
    for (level, shade) in SHADES.iter().enumerate() {
        let mut path = String::new();
        for (class, counts) in table.counts.iter().enumerate() {
            for (device, _) in
                counts.iter().enumerate().filter(|&(_, &c)| shade_of(c, table.most) == Some(level))
            {
                let (x, y) = (grid.left + device as f64 * grid.column, grid.top + class as f64 * grid.row);
                path.push_str(&format!(
                    "M{x:.2} {y:.2}h{:.2}v{:.2}h-{:.2}z",
                    grid.column, grid.row, grid.column
                ));
            }
        }
        if !path.is_empty() {
            svg.shape(&format!("<path d=\"{path}\" fill=\"{shade}\""), "");
        }
    }
    let how = Type { colour: FAINT, ..Type::default() };
    let mut x = grid.left;
    for (label, bar) in
        [("Training samples: 1", false), ("", true), (&*grouped(u64::from(table.most)), false)]
    {
        if bar {
            for shade in SHADES {
                svg.rect(x, 9.0, 12.0, 10.0, shade);
                x += 12.0;
            }
        } else {
            svg.text(x, 14.0 + SIZE * 0.36, label, how);
            x += width(label, SIZE, false);
        }
        x += 6.0;
    }
    grid.names(&mut svg, table);
    svg
}

/// Which shade a count has: equal steps from 1 to the greatest, none for none.
fn shade_of(count: u32, most: u32) -> Option<usize> {
    let steps = u64::from(count).checked_mul(SHADES.len() as u64)?;
    (count > 0).then(|| (steps.div_ceil(u64::from(most.max(1))) as usize).clamp(1, SHADES.len()) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_count_is_darkest_and_none_is_white() {
        assert_eq!(shade_of(0, 50), None);
        assert_eq!(shade_of(1, 50), Some(0));
        assert_eq!(shade_of(50, 50), Some(SHADES.len() - 1));
        assert_eq!(shade_of(u32::MAX, u32::MAX), Some(SHADES.len() - 1));
    }

    #[test]
    fn the_key_has_round_numbers_within_the_data() {
        assert_eq!(reference_counts(487), [40, 200]);
        assert_eq!(reference_counts(500), [100, 500]);
        assert_eq!(reference_counts(1), [1]);
        assert_eq!(reference_counts(7), [1, 5]);
    }
}
