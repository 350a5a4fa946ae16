//! The table.

use crate::measure::{Figures, Memory, Size};

/// What is known of one contender.
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) figures: Figures,
    pub(crate) memory: Memory,
}

/// A cell of a column, given the one without a proxy; that one is given none.
type Cell = fn(&Column, Option<&Column>) -> String;

/// Markdown, with a column for each contender; the first is the upstream without a proxy.
pub(crate) fn table(columns: &[Column], size: Size) -> String {
    let Size { streams, events, silent_streams, .. } = size;
    let rows: [(String, Cell); 10] = [
        ("small JSON, 32 connections: requests/s".to_owned(), |it, _| number(it.figures.per_second, 0)),
        ("… CPU per request, µs".to_owned(), |it, direct| of_a_process(direct, it.figures.cpu_us, 1)),
        ("small JSON, 1,000 requests/s: p50, ms".to_owned(), |it, direct| {
            added(it, direct, |column| column.figures.p50_ms)
        }),
        ("… p99, ms".to_owned(), |it, direct| added(it, direct, |column| column.figures.p99_ms)),
        (format!("{streams} streams × {events} events: first event p50, ms"), |it, direct| {
            added(it, direct, |column| column.figures.first_event_ms)
        }),
        ("… events lost / repeated".to_owned(), |it, _| {
            format!("{} / {}", it.figures.lost, it.figures.repeated)
        }),
        ("… CPU per event, µs".to_owned(), |it, direct| {
            of_a_process(direct, it.figures.cpu_us_per_event, 1)
        }),
        ("1 MiB JSON request: CPU per request, µs".to_owned(), |it, direct| {
            of_a_process(direct, it.figures.large_cpu_us, 0)
        }),
        ("memory after one request, MiB".to_owned(), |it, direct| {
            of_a_process(direct, it.memory.idle_kib.map(|kib| kib / 1024.0), 1)
        }),
        (format!("… with {silent_streams} open streams: KiB per stream"), |it, direct| {
            of_a_process(direct, it.memory.per_stream_kib, 1)
        }),
    ];
    let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
    let mut text = format!("| | {} |\n|---|{}\n", names.join(" | "), "--:|".repeat(columns.len()));
    for (label, cell) in rows {
        let direct = |at| if at > 0 { columns.first() } else { None };
        let cells: Vec<String> =
            columns.iter().enumerate().map(|(at, column)| cell(column, direct(at))).collect();
        text += &format!("| {label} | {} |\n", cells.join(" | "));
    }
    text
}

fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "n/a".to_owned(), |value| format!("{value:.decimals$}"))
}

/// The upstream shares its process with the load, so that nothing can be said of it alone.
fn of_a_process(direct: Option<&Column>, value: Option<f64>, decimals: usize) -> String {
    if direct.is_some() { number(value, decimals) } else { "–".to_owned() }
}

/// A latency as it is without a proxy, and what a proxy adds.
fn added(column: &Column, direct: Option<&Column>, of: fn(&Column) -> Option<f64>) -> String {
    let Some(direct) = direct else { return number(of(column), 2) };
    let added = of(column).zip(of(direct)).map(|(with, without)| with - without);
    added.map_or_else(|| "n/a".to_owned(), |added| format!("{added:+.2}"))
}
