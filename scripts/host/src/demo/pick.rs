//! Finds the story in a trace: a system call during which the guest's kernel writes a page-table entry, and the later fault of
//! the process through that very entry.

use gnomon_trace::{Kind, Reason};

use super::episode::Episode;

/// The vector of the demo guest's system calls.
const SYSTEM_CALL: u8 = 0x80;
/// A page-table entry's present bit.
const PRESENT: u64 = 1;
/// A user process.
const USER: u8 = 3;

/// Where the story is, as indices of episodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plot {
    /// The process asks.
    pub(super) call: usize,
    /// The kernel writes the entry (the last one it writes in this call).
    pub(super) write: usize,
    /// The guest-physical address of that entry.
    pub(super) gpte: u64,
    /// The process touches the page behind the entry.
    pub(super) touch: usize,
}

/// The first such story.
pub(super) fn find(episodes: &[Episode]) -> Option<Plot> {
    let calls = episodes.iter().enumerate().filter(|(_, episode)| is_call(episode));
    calls.into_iter().find_map(|(call, _)| follow(episodes, call))
}

fn is_call(episode: &Episode) -> bool {
    episode.reason() == Some(Reason::SoftInterrupt)
        && episode.ring() == Some(USER)
        && episode.of_kind(Kind::Inject).any(|inject| inject.code == SYSTEM_CALL)
}

fn follow(episodes: &[Episode], call: usize) -> Option<Plot> {
    let back = |episode: &Episode| episode.resume.is_some_and(|resume| resume.flags == USER);
    let returned = call + 1 + episodes.get(call + 1..)?.iter().position(back)?;
    let during = episodes.get(call..=returned)?;
    // The process need not touch the last page that it got, nor the first.
    let writes = during.iter().enumerate().flat_map(|(offset, episode)| {
        let entries = episode.of_kind(Kind::PtWrite).filter(|write| write.code == 1 && write.c & PRESENT != 0);
        entries.map(move |write| (call + offset, write.a))
    });
    let writes: Vec<(usize, u64)> = writes.collect();
    let touched = |episode: &Episode, gpte: u64| {
        episode.ring() == Some(USER) && episode.of_kind(Kind::Walk).any(|walk| walk.code == 1 && walk.b == gpte)
    };
    let after = episodes.get(returned + 1..)?.iter().enumerate();
    after.into_iter().find_map(|(offset, episode)| {
        let &(write, gpte) = writes.iter().find(|&&(_, gpte)| touched(episode, gpte))?;
        Some(Plot { call, write, gpte, touch: returned + 1 + offset })
    })
}
