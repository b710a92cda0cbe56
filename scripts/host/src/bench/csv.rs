//! `results.csv`: a line for each operation of each run.

use super::column::{machine_name, name};
use super::results::{Results, Run};

/// The name of the file.
pub(super) const FILE: &str = "results.csv";

const HEADER: &str = "guest,machine,backend,mmu,policy,clock,operation,count,rounds,cost,quartile1,quartile3,exits,exits_by_reason,mmu_events\n";

/// The whole file. The conditions are in lines that begin with `#`.
pub(super) fn text(results: &Results) -> String {
    let tools = &results.tools;
    let mut text = String::new();
    for (what, which) in [
        ("command", results.command.clone()),
        ("commit", results.source.commit.clone() + if results.source.changed { " with changes" } else { "" }),
        ("qemu", format!("{} -cpu {}", tools.qemu, tools.qemu_cpu)),
        ("bochs", format!("{} model {}", tools.bochs, tools.bochs_cpu)),
        ("compiler", tools.rustc.clone()),
        ("host", tools.host.clone()),
    ] {
        text.push_str(&format!("# {what}: {which}\n"));
    }
    text.push_str(HEADER);
    results.runs.iter().for_each(|run| lines(run, &mut text));
    text
}

fn lines(run: &Run, text: &mut String) {
    let column = run.column;
    let words = [
        run.guest.clone(),
        machine_name(column.machine).to_lowercase(),
        name(column.backend),
        column.mmu.map(name).unwrap_or_default(),
        column.policy.map(name).unwrap_or_default(),
        name(run.clock),
    ];
    for operation in &run.operations {
        let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
        let list = |counts: &Option<std::collections::BTreeMap<String, f64>>| {
            let counts = counts.iter().flatten().map(|(name, count)| format!("{name}={count}"));
            counts.collect::<Vec<_>>().join(" ")
        };
        let cells = [
            operation.name.clone(),
            operation.count.to_string(),
            operation.rounds.to_string(),
            operation.cost.to_string(),
            number(operation.spread.map(|(low, _)| low)),
            number(operation.spread.map(|(_, high)| high)),
            number(operation.all_exits()),
            list(&operation.exits),
            list(&operation.mmu),
        ];
        text.push_str(&format!("{},{}\n", words.join(","), cells.join(",")));
    }
}
