//! A trace, cut into episodes: from one exit to the resume that answers it.

use gnomon_trace::{Kind, Reason, Record};

/// One trip into the hypervisor.
#[derive(Clone, Debug)]
pub(super) struct Episode {
    /// Why the guest left. Missing where the hypervisor took over on its own account (a host interrupt).
    pub(super) exit: Option<Record>,
    /// What happened meanwhile.
    pub(super) body: Vec<Record>,
    /// How the guest went on. Missing if it did not.
    pub(super) resume: Option<Record>,
    /// Guest instructions since the resume before, if there was one.
    pub(super) before: Option<u64>,
}

impl Episode {
    /// What the exit was counted as.
    pub(super) fn reason(&self) -> Option<Reason> {
        let resume = self.resume.as_ref()?;
        self.exit.as_ref().and(Reason::ALL.get(usize::from(resume.code))).copied()
    }

    /// The guest's privilege level, as the guest sees it, when it left.
    pub(super) fn ring(&self) -> Option<u8> {
        self.exit.map(|exit| exit.flags)
    }

    /// Time stamps between exit and resume, without those spent on sending the trace.
    pub(super) fn cost(&self) -> u64 {
        let start = self.exit.as_ref().or(self.body.first()).map(|record| record.tsc);
        let all = start.zip(self.resume).map_or(0, |(start, resume)| resume.tsc.saturating_sub(start));
        all.saturating_sub(self.of_kind(Kind::Drained).map(|record| record.a).sum())
    }

    /// The records of this kind.
    pub(super) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Record> {
        self.body.iter().filter(move |record| record.kind == kind)
    }
}

/// Cuts the records of one VM. What comes before the first exit is the first episode's.
pub(super) fn cut(records: &[Record], vm: u8) -> Vec<Episode> {
    let mut episodes = Vec::new();
    let mut last_resume: Option<u64> = None;
    let mut current: Option<Episode> = None;
    for record in records.iter().filter(|record| record.vm == vm) {
        let before = last_resume.map(|tsc| record.tsc.saturating_sub(tsc));
        let fresh = || Episode { exit: None, body: Vec::new(), resume: None, before };
        match record.kind {
            Kind::Exit => {
                episodes.extend(current.take());
                current = Some(Episode { exit: Some(*record), ..fresh() });
            }
            Kind::Resume => {
                let episode = current.take().unwrap_or_else(fresh);
                episodes.push(Episode { resume: Some(*record), ..episode });
                last_resume = Some(record.tsc);
            }
            Kind::Counter | Kind::MmuCounter | Kind::Header | Kind::VmStart | Kind::VmStop => {}
            _ => current.get_or_insert_with(fresh).body.push(*record),
        }
    }
    episodes.extend(current);
    episodes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: Kind, tsc: u64) -> Record {
        Record { tsc, vm: 1, ..Record::new(kind) }
    }

    #[test]
    fn exits_and_resumes_pair_up() {
        let reason = Reason::Iret as u8;
        let records = [
            record(Kind::VmStart, 0),
            Record { code: Reason::Io as u8, ..record(Kind::Resume, 10) },
            record(Kind::Exit, 110),
            record(Kind::Ring, 120),
            Record { a: 30, ..record(Kind::Drained, 121) },
            Record { code: reason, ..record(Kind::Resume, 150) },
            record(Kind::Exit, 200),
            record(Kind::VmStop, 210),
        ];
        let episodes = cut(&records, 1);
        assert_eq!(episodes.len(), 3);
        assert_eq!((episodes[0].reason(), episodes[0].before), (None, None), "no exit, no reason");
        assert_eq!((episodes[1].reason(), episodes[1].cost(), episodes[1].before), (Some(Reason::Iret), 10, Some(100)));
        assert_eq!(episodes[1].of_kind(Kind::Ring).count(), 1);
        assert!(episodes[2].resume.is_none());
        assert!(cut(&records, 2).is_empty());
    }
}
