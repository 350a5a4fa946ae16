//! The table.

use std::time::Duration;

use crate::{
    scenario::Scenario,
    tally::{Tally, ratio},
};

/// A scenario with what became of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) scenario: Scenario,
    pub(crate) ours: Tally,
    pub(crate) robin: Tally,
    pub(crate) optimum: Tally,
}

/// Where plain round robin wastes less of its calls, a scenario shows nothing.
const CHALLENGE: f64 = 0.05;

const HEAD: &str = "\
| scenario | | offered | served, % of possible | client errors | upstream calls | wasted, % of calls | wasted per success \
| wait p50, s | p99, s | fair to clients | to accounts |
|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
";

/// Markdown, with three rows for each scenario.
pub(crate) fn table(outcomes: &mut [Outcome]) -> String {
    let mut text = HEAD.to_owned();
    for Outcome { scenario, ours, robin, optimum } in outcomes {
        let possible = optimum.served;
        let title = format!("**{}**: {}", scenario.name, scenario.about);
        text += &row(&title, "key-cycle-proxy", ours, possible);
        text += &row("", "round robin", robin, possible);
        text += &row("", "optimum", optimum, possible);
    }
    text
}

fn row(title: &str, name: &str, tally: &mut Tally, possible: u64) -> String {
    let seconds = |wait: Duration| format!("{:.2}", wait.as_secs_f64());
    let cells = [
        title.to_owned(),
        name.to_owned(),
        tally.offered.to_string(),
        format!("{:.2}", 100.0 * ratio(tally.served, possible)),
        tally.errors.to_string(),
        tally.calls.to_string(),
        format!("{:.2}", 100.0 * tally.waste()),
        format!("{:.3}", ratio(tally.wasted(), tally.served)),
        seconds(tally.wait(0.5)),
        seconds(tally.wait(0.99)),
        format!("{:.3}", tally.client_fairness()),
        format!("{:.3}", tally.account_fairness()),
    ];
    format!("| {} |\n", cells.join(" | "))
}

impl Outcome {
    /// What is worse than it must be.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        let name = self.scenario.name;
        let mut complaints = self.scenario.floor.complaints(&mut self.ours, &self.optimum);
        let robin = self.robin.waste();
        if robin < CHALLENGE {
            complaints.push(format!("it shows nothing: round robin wastes {robin:.4} of its calls"));
        }
        complaints.into_iter().map(|complaint| format!("{name}: {complaint}")).collect()
    }
}
