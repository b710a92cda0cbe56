//! The story as text.

use std::fmt::{self, Write};

use gnomon_trace::{Kind, Reason, Record};

use super::episode::Episode;
use super::pick::Plot;
use super::style::Style;
use super::tell::{Teller, pair};
use crate::trace::Names;

/// What the story needs beside the trace.
pub(super) struct Options {
    pub(super) style: Style,
    /// Show the records of each step.
    pub(super) records: bool,
}

/// Exits that are told one by one; others between them are summed up.
const TOLD: [Reason; 9] = [
    Reason::SoftInterrupt,
    Reason::PtWrite,
    Reason::Iret,
    Reason::HiddenFault,
    Reason::TrueFault,
    Reason::WriteCr3,
    Reason::Invlpg,
    Reason::FarReturn,
    Reason::TrackedWrite,
];

/// Tells the story of `plot`.
pub(super) fn tell(episodes: &[Episode], plot: Plot, names: &Names, options: &Options) -> Result<String, fmt::Error> {
    let teller = Teller { names, style: options.style, shadows: pair(episodes) };
    let mut out = String::new();
    prologue(&mut out, &episodes[..plot.call], options)?;
    let mut step = Step { number: 1, out: &mut out, teller: &teller, options };
    step.process_runs(&episodes[plot.call])?;
    let mut quiet: Vec<&Episode> = Vec::new();
    for episode in &episodes[plot.call..=plot.touch] {
        if episode.reason().is_some_and(|reason| TOLD.contains(&reason)) {
            step.between(&quiet)?;
            quiet.clear();
            step.tell(episode)?;
        } else {
            quiet.push(episode);
        }
    }
    step.after_the_touch(&episodes[plot.touch])?;
    ending(&mut out, &episodes[plot.call..=plot.touch], options)?;
    Ok(out)
}

fn prologue(out: &mut String, episodes: &[Episode], options: &Options) -> fmt::Result {
    writeln!(out, "{}", options.style.title("Before: the guest boots"))?;
    let controls = episodes.iter().flat_map(|episode| episode.of_kind(Kind::SetControl));
    let paging = controls.filter(|record| record.code == 0 && record.b >> 31 & 1 == 1).count();
    let tables =
        episodes.iter().flat_map(|episode| episode.of_kind(Kind::Track)).filter(|track| track.code != 0).count();
    let roots: Vec<&Record> = episodes.iter().flat_map(|episode| episode.of_kind(Kind::SetCr3)).collect();
    writeln!(out, "   Its kernel runs in ring 1, its process in ring 3; Gnomon alone is in ring 0.")?;
    if paging > 0 {
        writeln!(out, "   It has turned paging on, and {tables} of its page tables are write-protected by now.")?;
    }
    if let Some(root) = roots.last() {
        writeln!(out, "   It believes CR3 is {:#x}; the CPU runs on the shadow root at HPA {:#x}.", root.b, root.c)?;
    }
    writeln!(out, "   {}.", sum_up(episodes.iter()))?;
    writeln!(out)
}

struct Step<'a> {
    number: usize,
    out: &'a mut String,
    teller: &'a Teller<'a>,
    options: &'a Options,
}

impl Step<'_> {
    fn title(&mut self, text: &str) -> fmt::Result {
        let title = self.options.style.title(&format!("{:>2} {text}", self.number));
        self.number += 1;
        writeln!(self.out, "{title}")
    }

    /// What the process did before its call: nothing that the hypervisor saw.
    fn process_runs(&mut self, call: &Episode) -> fmt::Result {
        let Some(exit) = call.exit else { return Ok(()) };
        let place = self.teller.place(&exit);
        self.title(&format!("The process runs, up to {place}"))?;
        let free = call.before.unwrap_or(0);
        writeln!(
            self.out,
            "   {} instructions in ring 3, natively: no exit, so Gnomon has seen nothing of it.",
            grouped(free)
        )?;
        writeln!(self.out)
    }

    fn tell(&mut self, episode: &Episode) -> fmt::Result {
        self.title(&self.teller.headline(episode))?;
        for trap in self.teller.trap(episode) {
            self.line("trap", &trap)?;
        }
        let why = Teller::why(episode);
        if !why.is_empty() {
            self.line("why", why)?;
        }
        for action in self.teller.actions(episode) {
            for line in action.lines() {
                self.line("Gnomon", line)?;
            }
        }
        self.line("cost", &format!("1 exit, {} instructions", grouped(episode.cost())))?;
        if self.options.records {
            for line in self.teller.raw(episode) {
                self.line("record", &line)?;
            }
        }
        writeln!(self.out)
    }

    fn line(&mut self, label: &str, text: &str) -> fmt::Result {
        writeln!(self.out, "   {} {text}", self.options.style.dim(&format!("{label:<7}")))
    }

    fn between(&mut self, quiet: &[&Episode]) -> fmt::Result {
        if quiet.is_empty() {
            return Ok(());
        }
        writeln!(self.out, "   {}", self.options.style.dim(&format!("... {}", sum_up(quiet.iter().copied()))))?;
        writeln!(self.out)
    }

    fn after_the_touch(&mut self, touch: &Episode) -> fmt::Result {
        let Some(resume) = touch.resume else { return Ok(()) };
        self.title("The process goes on as if nothing had happened")?;
        let place = self.teller.address(resume.vm, resume.a);
        writeln!(self.out, "   The same instruction at {place} runs again, and now finds its page.")?;
        writeln!(self.out)
    }
}

/// What it all cost.
fn ending(out: &mut String, episodes: &[Episode], options: &Options) -> fmt::Result {
    writeln!(out, "{}", options.style.title("From the call to the page"))?;
    writeln!(out, "   {}.", sum_up(episodes.iter()))?;
    let guest: u64 = episodes.iter().skip(1).filter_map(|episode| episode.before).sum();
    writeln!(out, "   {} instructions of the guest's own in between.", grouped(guest))?;
    writeln!(out, "   (Instructions are time stamps, one each. Gnomon's include making the trace, but not sending it.)")
}

/// `12 exits, 4,711 instructions in Gnomon (8 io, 3 cli, 1 sti)`.
fn sum_up<'a>(episodes: impl Iterator<Item = &'a Episode>) -> String {
    let (mut total, mut cost) = (0, 0);
    let mut counters = gnomon_trace::Counters::new();
    for episode in episodes {
        if let Some(reason) = episode.reason() {
            total += 1;
            cost += episode.cost();
            counters.add(reason);
        }
    }
    let mut reasons: Vec<(Reason, u64)> = counters.nonzero().collect();
    reasons.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let list: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {}", reason.name())).collect();
    let word = if total == 1 { "exit" } else { "exits" };
    let list = list.join(", ");
    // Long lists get a line of their own.
    let gap = if list.len() > 60 { "\n   " } else { " " };
    format!("{total} {word}, {} instructions in Gnomon{gap}({list})", grouped(cost))
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests;
