//! Line and point charts as SVG text. Pure.
//!
//! No script and no style sheet of others: a chart is to be readable in twenty years and on a machine without network.

use std::fmt::Write as _;

/// Size of a chart and of the room for its labels, SVG units.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 40.0;
/// Lines across a linear axis.
const TICKS: f64 = 5.0;
/// Points of one series that are drawn: more than there are pixels shows nothing.
const POINTS_MAX: usize = 720;

/// How values become places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// From 0.
    Linear,
    /// By powers of ten.
    Log,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Line,
    Dashes,
    Dots,
}

/// One series.
pub(super) struct Series<'a> {
    pub(super) name: &'a str,
    /// Number of its colour in the page's style.
    pub(super) color: usize,
    pub(super) mark: Mark,
    pub(super) points: Vec<(f64, f64)>,
}

/// One chart.
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    pub(super) x_label: &'a str,
    pub(super) y_label: &'a str,
    pub(super) y_scale: Scale,
    /// How a place on an axis is written.
    pub(super) show_x: &'a dyn Fn(f64) -> String,
    pub(super) show_y: &'a dyn Fn(f64) -> String,
    /// Places on the x axis that are named; none: round numbers.
    pub(super) x_ticks: Vec<f64>,
    pub(super) series: Vec<Series<'a>>,
}

struct Range {
    least: f64,
    most: f64,
}

impl Chart<'_> {
    /// The chart as an `<svg>` element.
    pub(super) fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let x = Range {
            least: points().map(|point| point.0).fold(f64::INFINITY, f64::min).min(0.0),
            most: most(points().map(|point| point.0)),
        };
        let y = self.y_range();
        let place_x = |value: f64| LEFT + (value - x.least) / (x.most - x.least) * (WIDTH - LEFT - RIGHT);
        let place_y = |value: f64| {
            let part = match self.y_scale {
                Scale::Linear => (value - y.least) / (y.most - y.least),
                Scale::Log => (value.max(y.least) / y.least).log10() / (y.most / y.least).log10(),
            };
            HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)
        };
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n<text class=\"title\" x=\"{LEFT}\" y=\"16\">{title}</text>\n",
            title = escape(self.title)
        );
        for value in self.y_ticks(&y) {
            let at = place_y(value);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text class=\"tick\" text-anchor=\"end\" x=\"{}\" y=\"{:.1}\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 3.5,
                escape(&(self.show_y)(value))
            );
        }
        let x_ticks = if self.x_ticks.is_empty() { linear_ticks(&x) } else { self.x_ticks.clone() };
        for value in x_ticks.into_iter().filter(|value| (x.least..=x.most).contains(value)) {
            let at = place_x(value);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{}\"/><text class=\"tick\" text-anchor=\"middle\" x=\"{at:.1}\" y=\"{}\">{}</text>",
                HEIGHT - BOTTOM,
                HEIGHT - BOTTOM + 14.0,
                escape(&(self.show_x)(value))
            );
        }
        for series in &self.series {
            draw(&mut svg, series, &place_x, &place_y);
        }
        self.write_labels(&mut svg);
        svg.push_str("</svg>\n");
        svg
    }

    fn y_range(&self) -> Range {
        let values = || self.series.iter().flat_map(|series| &series.points).map(|point| point.1);
        match self.y_scale {
            Scale::Linear => Range { least: 0.0, most: most(values()) * 1.05 },
            Scale::Log => {
                let least = values().filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
                let least = if least.is_finite() { 10f64.powf(least.log10().floor()) } else { 1.0 };
                Range { least, most: 10f64.powf((most(values()).max(least * 1.01)).log10().ceil()) }
            }
        }
    }

    fn y_ticks(&self, range: &Range) -> Vec<f64> {
        match self.y_scale {
            Scale::Linear => linear_ticks(range),
            Scale::Log => {
                let (from, to) = (range.least.log10().round() as i32, range.most.log10().round() as i32);
                (from..=to).map(|power| 10f64.powi(power)).collect()
            }
        }
    }

    fn write_labels(&self, svg: &mut String) {
        let _ = writeln!(
            svg,
            "<text class=\"label\" text-anchor=\"end\" x=\"{}\" y=\"{}\">{}</text>",
            WIDTH - RIGHT,
            HEIGHT - 8.0,
            escape(self.x_label)
        );
        let _ = writeln!(svg, "<text class=\"label\" x=\"4\" y=\"{}\">{}</text>", TOP - 8.0, escape(self.y_label));
        // From the right, so that the names stand beside the title and below none.
        let mut at = WIDTH - RIGHT;
        for series in self.series.iter().rev() {
            at -= 7.0 * series.name.chars().count() as f64 + 26.0;
            let _ = writeln!(
                svg,
                "<line class=\"s{}\" x1=\"{at:.1}\" x2=\"{:.1}\" y1=\"12\" y2=\"12\"/><text class=\"label\" x=\"{:.1}\" y=\"16\">{}</text>",
                series.color,
                at + 14.0,
                at + 18.0,
                escape(series.name)
            );
        }
    }
}

fn draw(svg: &mut String, series: &Series<'_>, place_x: &dyn Fn(f64) -> f64, place_y: &dyn Fn(f64) -> f64) {
    // Of neighbours that share a pixel the highest is drawn: a peak must not vanish.
    let per_point = series.points.len().div_ceil(POINTS_MAX).max(1);
    let drawn =
        series.points.chunks(per_point).filter_map(|near| near.iter().max_by(|one, other| one.1.total_cmp(&other.1)));
    let places = drawn.map(|point| (place_x(point.0), place_y(point.1)));
    if series.mark == Mark::Dots {
        for (x, y) in places {
            let _ = writeln!(svg, "<circle class=\"d{}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>", series.color);
        }
        return;
    }
    let path: Vec<String> = places.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let dashes = if series.mark == Mark::Dashes { " stroke-dasharray=\"5 4\"" } else { "" };
    let _ = writeln!(svg, "<polyline class=\"s{}\"{dashes} points=\"{}\"/>", series.color, path.join(" "));
}

/// The largest value; 1 if there is none above 0.
fn most(values: impl Iterator<Item = f64>) -> f64 {
    let most = values.fold(0.0, f64::max);
    if most > 0.0 { most } else { 1.0 }
}

/// Round numbers across a range.
fn linear_ticks(range: &Range) -> Vec<f64> {
    let rough = (range.most - range.least) / TICKS;
    let power = 10f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= rough).unwrap_or(power);
    let first = (range.least / step).ceil() as i64;
    let last = (range.most / step).floor() as i64;
    (first..=last).map(|at| at as f64 * step).collect()
}

/// Text for an element or an attribute.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(y_scale: Scale, points: Vec<(f64, f64)>) -> String {
        let series = vec![Series { name: "a<b", color: 1, mark: Mark::Line, points }];
        let show = |value: f64| format!("{value}");
        Chart {
            title: "T",
            x_label: "x",
            y_label: "y",
            y_scale,
            show_x: &show,
            show_y: &show,
            x_ticks: Vec::new(),
            series,
        }
        .svg()
    }

    #[test]
    fn every_place_lies_in_the_picture_also_for_nothing_and_for_zeroes() {
        for points in [vec![], vec![(0.0, 0.0)], vec![(1.0, 5.0), (2.0, 5e9), (9.0, 0.001)]] {
            for scale in [Scale::Linear, Scale::Log] {
                let svg = chart(scale, points.clone());
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
                assert!(svg.contains("a&lt;b") && svg.ends_with("</svg>\n"));
                let places = svg.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
                for place in places.split_whitespace() {
                    let (x, y) = place.split_once(',').unwrap();
                    let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                    assert!((0.0..=WIDTH).contains(&x) && (0.0..=HEIGHT).contains(&y), "{place}");
                }
            }
        }
    }

    #[test]
    fn a_peak_among_many_points_is_drawn() {
        let mut points: Vec<(f64, f64)> = (0..10_000).map(|at| (f64::from(at), 1.0)).collect();
        points[4321].1 = 100.0;
        let svg = chart(Scale::Linear, points);
        let highest = svg.split("points=\"").nth(1).unwrap().split('"').next().unwrap().split_whitespace();
        let highest =
            highest.map(|place| place.split_once(',').unwrap().1.parse::<f64>().unwrap()).fold(HEIGHT, f64::min);
        assert!(highest < HEIGHT / 4.0, "{highest}");
    }
}
