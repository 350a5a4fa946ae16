//! The plot: a row for each scenario, the pool on the left, round robin on the right.

use std::fmt::Write as _;

use crate::{
    report::Outcome,
    tally::{SLICES, Slice, Tally},
};

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 90.0;
const LEFT: f64 = 56.0;
const GAP: f64 = 60.0;
/// Above the first row, and of each row with its title and its axis.
const TOP: f64 = 40.0;
const ROW: f64 = 158.0;
/// From a row's top to that of its panels.
const TITLE: f64 = 36.0;

const STYLE: &str = "\
text { font: 11px system-ui, sans-serif; fill: #333 }
.title { font-weight: 600; font-size: 12px }
.right { text-anchor: end }
.frame { fill: none; stroke: #ccc }
.offered { fill: #e4e7eb; stroke: none }
.possible { fill: none; stroke: #222; stroke-dasharray: 3 3 }
.served { fill: none; stroke: #1a7f4b; stroke-width: 1.6 }
.wasted { fill: none; stroke: #d0312d; stroke-width: 1.2 }
";

const LEGEND: [(&str, &str); 4] = [
    ("offered", "offered"),
    ("possible", "possible"),
    ("served", "served"),
    ("wasted", "calls in vain (429 and failures)"),
];

/// Requests and calls per second, over the time.
pub(crate) fn plot(outcomes: &[Outcome]) -> String {
    let width = LEFT + WIDTH + GAP + WIDTH + 16.0;
    let rows = outcomes.iter().fold(0.0, |rows, _| rows + ROW);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\">\n<style>\n{STYLE}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        height = TOP + rows
    );
    legend(&mut svg);
    let mut top = TOP;
    for outcome in outcomes {
        row(&mut svg, outcome, top);
        top += ROW;
    }
    svg + "</svg>\n"
}

fn legend(svg: &mut String) {
    let mut x = LEFT;
    for (class, name) in LEGEND {
        let _ = match class {
            "offered" => {
                writeln!(svg, "<rect class=\"{class}\" x=\"{x}\" y=\"12\" width=\"20\" height=\"10\"/>")
            }
            _ => writeln!(svg, "<path class=\"{class}\" d=\"M{x} 17h20\"/>"),
        };
        let _ = writeln!(svg, "<text x=\"{}\" y=\"21\">{name}</text>", x + 26.0);
        x += 100.0;
    }
}

fn row(svg: &mut String, outcome: &Outcome, top: f64) {
    let Outcome { scenario, ours, robin, optimum } = outcome;
    let seconds = scenario.length.as_secs_f64() / f64::from(SLICES);
    let of = |slices: &[Slice], of: fn(&Slice) -> u32| -> Vec<f64> {
        slices.iter().map(|slice| f64::from(of(slice)) / seconds).collect()
    };
    let possible = of(&optimum.slices, |slice| slice.served);
    let lines = |tally: &Tally| {
        [
            ("offered", of(&tally.slices, |slice| slice.offered)),
            ("wasted", of(&tally.slices, |slice| slice.wasted)),
            ("possible", possible.clone()),
            ("served", of(&tally.slices, |slice| slice.served)),
        ]
    };
    let panels = [("key-cycle-proxy", lines(ours)), ("round robin", lines(robin))];
    let all = panels.iter().flat_map(|(_, lines)| lines).flat_map(|(_, values)| values);
    let most = round_up(all.copied().fold(1.0, f64::max));
    let title = format!("{}: {}", scenario.name, scenario.about);
    let _ = writeln!(svg, "<text class=\"title\" x=\"{LEFT}\" y=\"{}\">{title}</text>", top + 12.0);
    let minutes = scenario.length.as_secs() / 60;
    let mut left = LEFT;
    let (panel_top, bottom) = (top + TITLE, top + TITLE + HEIGHT);
    for (name, lines) in &panels {
        for (class, values) in lines {
            line(svg, class, values, most, (left, panel_top));
        }
        let right = left + WIDTH;
        let _ = writeln!(
            svg,
            "<path class=\"frame\" d=\"M{left} {panel_top}h{WIDTH}v{HEIGHT}h-{WIDTH}z\"/>\n\
             <text x=\"{left}\" y=\"{above}\">{name}</text>\n\
             <text class=\"right\" x=\"{beside}\" y=\"{high}\">{most}/s</text>\n\
             <text class=\"right\" x=\"{beside}\" y=\"{bottom}\">0</text>\n\
             <text class=\"right\" x=\"{right}\" y=\"{below}\">{minutes} min</text>",
            above = panel_top - 4.0,
            high = panel_top + 9.0,
            beside = left - 4.0,
            below = bottom + 13.0,
        );
        left += WIDTH + GAP;
    }
}

fn line(svg: &mut String, class: &str, values: &[f64], most: f64, (left, top): (f64, f64)) {
    let step = WIDTH / f64::from(SLICES);
    let mut points = String::new();
    let mut x = left + step / 2.0;
    for value in values {
        let _ = write!(points, "{x:.0},{:.0} ", top + HEIGHT * (1.0 - value / most));
        x += step;
    }
    if class == "offered" {
        let bottom = top + HEIGHT;
        let (first, last) = (left + step / 2.0, x - step);
        let _ = write!(points, "{last:.0},{bottom} {first:.0},{bottom}");
    }
    let _ = writeln!(svg, "<polyline class=\"{class}\" points=\"{}\"/>", points.trim_end());
}

/// The next number with one digit that isn't zero, or 15 or 25 in its place.
fn round_up(number: f64) -> f64 {
    let unit = 10_f64.powf(number.log10().floor());
    let steps = [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    steps.iter().map(|step| step * unit).find(|step| *step >= number).unwrap_or(number)
}
