//! Plots as SVG text: grouped bars, and lines over a linear or logarithmic axis.
//!
//! Written by hand: the plots consist of rectangles, lines and text, and a plotting library would add fonts and a
//! canvas. The white background is part of the image, for pages with a dark theme.

use std::fmt::Write as _;

/// The palette of Okabe and Ito, which remains distinguishable for people with colour blindness, and seven more
/// colours.
const COLOURS: [&str; 14] = [
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c6d31", "#7f7f7f", "#5f4690",
    "#b5bd00", "#1b9e9e", "#a50f15", "#222222", "#b3b3b3",
];
const WIDTH: f64 = 860.0;
const FONT: &str = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif";

/// One group of bars.
pub(crate) struct Group {
    pub(crate) label: String,
    /// One value per subject, in the order of the subjects; `None` if it was not measured.
    pub(crate) values: Vec<Option<f64>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    /// To base ten. Values that are not positive are omitted.
    Log,
}

pub(crate) struct Axis<'a> {
    pub(crate) label: &'a str,
    pub(crate) scale: Scale,
}

pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Draws horizontal bars from zero: in each group one bar per subject, followed by its value.
pub(crate) fn bars(title: &str, unit: &str, subjects: &[&str], groups: &[Group]) -> String {
    const BAR: f64 = 13.0;
    const GAP: f64 = 14.0;
    const LEFT: f64 = 190.0;
    const RIGHT: f64 = 70.0;
    let bars = |group: &Group| group.values.iter().filter(|value| value.is_some()).count() as f64;
    // A subject has the same colour in all plots; a subject without values is omitted from the legend.
    let shown =
        |subject: &usize| groups.iter().any(|group| group.values.get(*subject).is_some_and(Option::is_some));
    let named: Vec<_> =
        (0..subjects.len()).filter(shown).map(|subject| (subject, subjects[subject])).collect();
    let top = 44.0 + legend_height(&named);
    let height = top + groups.iter().map(|group| bars(group) * BAR + GAP).sum::<f64>() + 6.0;
    let mut svg = Svg::new(title, unit, height);
    svg.legend(&named);
    let most = groups.iter().flat_map(|group| &group.values).flatten().copied().fold(0.0, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / if most > 0.0 { most } else { 1.0 };
    let mut y = top;
    for group in groups {
        svg.text(LEFT - 8.0, y + bars(group) * BAR / 2.0 + 4.0, "end", &group.label);
        for (subject, value) in group.values.iter().enumerate() {
            let Some(value) = value else { continue };
            svg.rect(LEFT, y, value * scale, BAR - 2.0, colour(subject));
            svg.text(LEFT + value * scale + 5.0, y + BAR - 4.0, "start", &number(*value));
            y += BAR;
        }
        y += GAP;
    }
    svg.line((LEFT, top - 6.0), (LEFT, height - 10.0), "#444");
    svg.end()
}

/// Draws series of points joined by lines, with a mark at every point.
pub(crate) fn lines(title: &str, x: &Axis<'_>, y: &Axis<'_>, series: &[Series]) -> String {
    let named = series.iter().enumerate().filter(|(_, series)| !series.points.is_empty());
    let names: Vec<_> = named.map(|(index, series)| (index, series.name.as_str())).collect();
    let top = 52.0 + legend_height(&names);
    let height = top + 320.0 + 56.0;
    let mut svg = Svg::new(title, y.label, height);
    svg.legend(&names);
    let points = || {
        series.iter().flat_map(|series| &series.points).filter(|point| x.shows(point.0) && y.shows(point.1))
    };
    let across = Range::of(points().map(|point| point.0), x.scale, 78.0, WIDTH - 28.0);
    let up = Range::of(points().map(|point| point.1), y.scale, height - 56.0, top);
    for tick in up.ticks() {
        let at = up.place(tick);
        svg.line((across.start, at), (across.end, at), "#ddd");
        svg.text(across.start - 6.0, at + 4.0, "end", &number(tick));
    }
    for tick in across.ticks() {
        let at = across.place(tick);
        svg.line((at, up.end), (at, up.start), "#eee");
        svg.text(at, up.start + 17.0, "middle", &number(tick));
    }
    svg.line((across.start, up.start), (across.end, up.start), "#444");
    svg.text(f64::midpoint(across.start, across.end), height - 16.0, "middle", x.label);
    for (index, series) in series.iter().enumerate() {
        let shown = series.points.iter().filter(|point| x.shows(point.0) && y.shows(point.1));
        svg.path(shown.map(|point| (across.place(point.0), up.place(point.1))), colour(index));
    }
    svg.end()
}

impl Axis<'_> {
    fn shows(&self, value: f64) -> bool {
        value.is_finite() && (self.scale == Scale::Linear || value > 0.0)
    }
}

/// Maps values to a range of pixels.
struct Range {
    low: f64,
    high: f64,
    scale: Scale,
    start: f64,
    end: f64,
}

impl Range {
    /// Rounds the range outwards to the next tick; a linear axis starts at zero.
    fn of(values: impl Iterator<Item = f64>, scale: Scale, start: f64, end: f64) -> Range {
        let (least, most) =
            values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = match scale {
            _ if least > most => (0.0, 1.0),
            Scale::Linear => (least.min(0.0), if most > 0.0 { most } else { 1.0 }),
            Scale::Log => (least, most.max(least * 1.001)),
        };
        let mut range = Range { low, high, scale, start, end };
        if scale == Scale::Linear {
            let step = range.step();
            (range.low, range.high) = ((low / step).floor() * step, (high / step - 1e-9).ceil() * step);
        }
        range
    }

    fn place(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value / self.low).ln() / (self.high / self.low).ln(),
        };
        self.start + part * (self.end - self.start)
    }

    /// Returns the distance of ticks of a linear axis: 1, 2 or 5 times a power of ten, for four to nine ticks.
    fn step(&self) -> f64 {
        let rough = (self.high - self.low) / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        [1.0, 2.0, 5.0, 10.0]
            .map(|times| times * power)
            .into_iter()
            .find(|step| *step >= rough)
            .unwrap_or(rough)
    }

    fn ticks(&self) -> Vec<f64> {
        if self.scale == Scale::Linear {
            let step = self.step();
            return (0..=20)
                .map(|n| self.low + f64::from(n) * step)
                .take_while(|tick| *tick <= self.high * 1.0001)
                .collect();
        }
        let first = self.low.log10().floor() as i32;
        let decades = self.high.log10().ceil() as i32 - first;
        let times: &[f64] = if decades > 3 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let all = (first..=first + decades)
            .flat_map(|power| times.iter().map(move |times| times * 10f64.powi(power)));
        all.filter(|tick| (self.low * 0.999..=self.high * 1.001).contains(tick)).collect()
    }
}

struct Svg(String);

impl Svg {
    fn new(title: &str, unit: &str, height: f64) -> Svg {
        let mut svg = Svg(format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0}" width="{WIDTH}" height="{height:.0}" font-family="{FONT}" font-size="12" fill="#222">
<rect width="100%" height="100%" rx="6" fill="#fff"/>
"##
        ));
        let head = format!(
            r##"<tspan font-size="15" font-weight="600">{}</tspan><tspan dx="10" fill="#666">{}</tspan>"##,
            escaped(title),
            escaped(unit)
        );
        writeln!(svg.0, r#"<text x="16" y="26">{head}</text>"#).ok();
        svg
    }

    /// Draws the legend, with as many names per line as fit.
    fn legend(&mut self, names: &[(usize, &str)]) {
        for ((index, name), (x, row)) in names.iter().zip(legend_places(names)) {
            let y = 38.0 + row * 18.0;
            self.rect(x, y, 11.0, 11.0, colour(*index));
            self.text(x + 16.0, y + 10.0, "start", name);
        }
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        writeln!(self.0, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#, escaped(text))
            .ok();
    }

    fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, fill: &str) {
        writeln!(
            self.0,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{fill}"/>"#
        )
        .ok();
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), stroke: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        writeln!(self.0, r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{stroke}"/>"#)
            .ok();
    }

    fn path(&mut self, points: impl Iterator<Item = (f64, f64)> + Clone, stroke: &str) {
        let list: Vec<_> = points.clone().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        writeln!(
            self.0,
            r#"<polyline points="{}" fill="none" stroke="{stroke}" stroke-width="2"/>"#,
            list.join(" ")
        )
        .ok();
        for (x, y) in points {
            writeln!(self.0, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{stroke}"/>"#).ok();
        }
    }

    fn end(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

/// Returns the position and the line of each name of a legend.
fn legend_places(names: &[(usize, &str)]) -> Vec<(f64, f64)> {
    let (mut x, mut row) = (16.0, 0.0);
    let place = |(_, name): &(usize, &str)| {
        // No font is available to measure text: a letter of 12 points is about seven pixels wide.
        let width = 36.0 + 7.0 * name.chars().count() as f64;
        if x + width > WIDTH - 8.0 {
            (x, row) = (16.0, row + 1.0);
        }
        let at = (x, row);
        x += width;
        at
    };
    names.iter().map(place).collect()
}

fn legend_height(names: &[(usize, &str)]) -> f64 {
    legend_places(names).last().map_or(0.0, |(_, row)| (row + 1.0) * 18.0)
}

fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

/// Formats a number with three significant digits and separators of thousands.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    match size {
        0.0 => "0".to_owned(),
        _ if size >= 1e9 => format!("{}G", three_digits(value / 1e9)),
        _ if size >= 1e6 => format!("{}M", three_digits(value / 1e6)),
        _ if size >= 1e4 => format!("{}k", three_digits(value / 1e3)),
        _ => three_digits(value),
    }
}

fn three_digits(value: f64) -> String {
    let decimals = (2 - value.abs().log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{value:.decimals$}");
    if decimals == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::{Axis, Group, Range, Scale, Series, bars, lines, number};

    #[test]
    fn bar_lengths_are_proportional_to_values() {
        let values = vec![Some(50.0), None, Some(100.0)];
        let svg =
            bars("CPU", "us", &["we", "unmeasured", "<they>"], &[Group { label: "1 & 2".into(), values }]);
        for part in [r#"width="600.0""#, r#"width="300.0""#, "&lt;they&gt;", "1 &amp; 2"] {
            assert!(svg.contains(part), "{part} in {svg}");
        }
        assert!(!svg.contains("unmeasured"), "a subject without a bar is not in the legend: {svg}");
    }

    #[test]
    fn logarithmic_axis_spaces_decades_evenly_and_omits_zero() {
        let axis = |scale| Axis { label: "n", scale };
        let series =
            Series { name: "a".into(), points: vec![(0.0, 1.0), (1.0, 1.0), (10.0, 2.0), (100.0, 3.0)] };
        let svg = lines("growth", &axis(Scale::Log), &axis(Scale::Linear), &[series]);
        let places: Vec<f64> = svg
            .lines()
            .filter_map(|line| line.strip_prefix("<circle cx=\"")?.split('"').next()?.parse().ok())
            .collect();
        assert_eq!(places, [78.0, 455.0, 832.0]);
    }

    #[test]
    fn ticks_are_round_numbers_that_enclose_a_linear_range() {
        let range = Range::of([3.0, 47.0].into_iter(), Scale::Linear, 0.0, 1.0);
        assert_eq!(range.ticks(), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        let log = Range::of([2.0, 2000.0].into_iter(), Scale::Log, 0.0, 1.0);
        assert_eq!(log.ticks(), [10.0, 100.0, 1000.0]);
    }

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0"),
            (0.1234, "0.123"),
            (1.5, "1.5"),
            (100.0, "100"),
            (9999.0, "9999"),
            (45_678.0, "45.7k"),
            (2e6, "2M"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }
}
