//! The report for a browser: one file that needs nothing else, and its plots as files of their own.

#[cfg(test)]
mod accessible;

use std::path::Path;

use super::catalog::{CATALOG, Entry, Family};
use super::column::{Backend, Column, Mmu, machine_name};
use super::model::{MISSES, Model, crossing};
use super::plot::{Plot, escape};
use super::png::Painter;
use super::report::CAVEAT;
use super::results::{Clock, Results, Run};
use super::table::figure;
use super::{BUILT_IN, write};
use crate::cli::MachineKind;

/// The name of the file.
pub(super) const FILE: &str = "report.html";
/// The guest's operations in which PTE updates and TLB misses are mixed, with the number of updates.
const MIXES: [(&str, f64); 5] = [("mix_0", 0.0), ("mix_1", 1.0), ("mix_4", 4.0), ("mix_16", 16.0), ("mix_64", 64.0)];
const RATIO: &str = "changed page-table entries for each TLB miss";

/// A plot, its name as a file without extension, and its figures as an HTML table.
struct Picture {
    file: String,
    svg: String,
    table: String,
}

/// Writes the page and the plots into a folder.
///
/// # Errors
/// If a file cannot be written, or the model cannot be read.
pub(super) fn save(results: &Results, folder: &Path) -> anyhow::Result<()> {
    let (page, pictures) = render(results)?;
    let plots = folder.join("plots");
    std::fs::create_dir_all(&plots)?;
    let painter = Painter::new();
    for Picture { file, svg, .. } in &pictures {
        std::fs::write(plots.join(format!("{file}.svg")), svg)?;
        std::fs::write(plots.join(format!("{file}.png")), painter.png(svg)?)?;
    }
    write(&folder.join(FILE), &page)
}

/// The page, and its plots one by one.
fn render(results: &Results) -> anyhow::Result<(String, Vec<Picture>)> {
    let model = Model::load()?;
    let mut body = String::new();
    let mut pictures = Vec::new();
    for machine in results.machines() {
        let runs: Vec<&Run> =
            results.select(BUILT_IN, machine, Clock::Count).into_iter().filter(|run| run.is_measured()).collect();
        if runs.is_empty() {
            continue;
        }
        let name = machine_name(machine);
        body.push_str(&format!("<h2>{name}: instructions for each operation</h2>\n<p class=\"caveat\">{CAVEAT}</p>\n"));
        for family in Family::ALL {
            show(&mut body, &mut pictures, costs(&runs, machine, family)?);
        }
        body.push_str(&format!("<h2>{name}: exits of each operation</h2>\n<p>Exact, counted by Gnomon. Operations without an exit in any column are left out.</p>\n"));
        show(&mut body, &mut pictures, exits(&runs, machine)?);
        body.push_str(&format!("<h2>{name}: shadow or nested paging?</h2>\n"));
        show(&mut body, &mut pictures, mixed(&runs, machine)?);
        body.push_str(&projection(&runs, machine, &model, &mut pictures)?);
    }
    times(results, &mut body, &mut pictures)?;
    let page = include_str!("page/page.html")
        .replace("/*STYLE*/", include_str!("page/style.css"))
        .replace("/*SCRIPT*/", include_str!("page/script.js"))
        .replace("<!--CONDITIONS-->", &conditions(results))
        .replace("<!--BODY-->", &body)
        .replace("<!--MEANINGS-->", &meanings());
    Ok((page, pictures))
}

fn show(body: &mut String, pictures: &mut Vec<Picture>, picture: Picture) {
    body.push_str(&format!(
        "<figure>{}<details><summary>The figures as a table</summary>{}</details></figure>\n",
        picture.svg, picture.table
    ));
    pictures.push(picture);
}

fn labels(runs: &[&Run]) -> Vec<String> {
    runs.iter().map(|run| run.column.label()).collect()
}

fn file(machine: MachineKind, what: &str) -> String {
    format!("{}-{what}", machine_name(machine).to_lowercase())
}

/// The rows as an HTML table.
fn html_table(head: &str, series: &[String], rows: &[(String, Vec<Option<f64>>)]) -> String {
    let cells = |row: &[Option<f64>]| -> String {
        row.iter().map(|value| format!("<td>{}</td>", value.map_or_else(String::new, figure))).collect()
    };
    let header: String = series.iter().map(|name| format!("<th scope=\"col\">{}</th>", escape(name))).collect();
    let body: String = rows
        .iter()
        .map(|(name, row)| format!("<tr><th scope=\"row\">{}</th>{}</tr>", escape(name), cells(row)))
        .collect();
    format!("<table><thead><tr><th scope=\"col\">{head}</th>{header}</tr></thead><tbody>{body}</tbody></table>")
}

fn of_family(family: Family) -> impl Iterator<Item = &'static Entry> {
    CATALOG.iter().filter(move |entry| entry.family == family)
}

fn costs(runs: &[&Run], machine: MachineKind, family: Family) -> anyhow::Result<Picture> {
    let series = labels(runs);
    let title = format!("{} on {}", family.title(), machine_name(machine));
    let values = |entry: &Entry| runs.iter().map(|run| run.cost(entry.name)).collect::<Vec<_>>();
    let rows = of_family(family).map(|entry| (entry.name.to_owned(), values(entry)));
    let rows: Vec<_> = rows.filter(|(_, values)| values.iter().any(Option::is_some)).collect();
    let plot = Plot { title: &title, axis: "instructions for each operation", series: &series, first: 0 };
    let what = format!("cost-{family:?}").to_lowercase();
    Ok(Picture { file: file(machine, &what), svg: plot.dots(&rows)?, table: html_table("operation", &series, &rows) })
}

fn exits(runs: &[&Run], machine: MachineKind) -> anyhow::Result<Picture> {
    let first = runs.iter().filter(|run| run.column.is_bare()).count();
    let runs: Vec<&Run> = runs.iter().filter(|run| !run.column.is_bare()).copied().collect();
    let series = labels(&runs);
    let values =
        |entry: &Entry| runs.iter().map(|run| run.operation(entry.name)?.all_exits()).collect::<Vec<Option<f64>>>();
    let rows = CATALOG.iter().map(|entry| (entry.name.to_owned(), values(entry)));
    let rows: Vec<_> = rows.filter(|(_, values)| values.iter().flatten().any(|count| *count >= 0.01)).collect();
    let title = format!("Exits of each operation on {}", machine_name(machine));
    let plot = Plot { title: &title, axis: "exits for each operation", series: &series, first };
    Ok(Picture { file: file(machine, "exits"), svg: plot.dots(&rows)?, table: html_table("operation", &series, &rows) })
}

/// A line through the `mix` operations of a run.
fn line(run: &Run, value: impl Fn(&super::results::Operation) -> f64) -> Vec<(f64, f64)> {
    let point = |(name, updates): &(&str, f64)| Some((updates / MISSES, value(run.operation(name)?)));
    MIXES.iter().filter_map(point).collect()
}

fn line_picture(plot: &Plot<'_>, file: String, lines: &[Vec<(f64, f64)>]) -> anyhow::Result<Picture> {
    let row = |(index, (_, updates)): (usize, &(&str, f64))| {
        let ratio = format!("{}", updates / MISSES);
        (ratio, lines.iter().map(|line| line.get(index).map(|point| point.1)).collect())
    };
    let rows: Vec<_> = MIXES.iter().enumerate().map(row).collect();
    Ok(Picture { file, svg: plot.lines(RATIO, lines)?, table: html_table(RATIO, plot.series, &rows) })
}

fn mixed(runs: &[&Run], machine: MachineKind) -> anyhow::Result<Picture> {
    let series = labels(runs);
    let lines: Vec<_> = runs.iter().map(|run| line(run, |operation| operation.cost / MISSES)).collect();
    let title = format!("Measured on {}: the software's part", machine_name(machine));
    let plot = Plot { title: &title, axis: "instructions for each TLB miss", series: &series, first: 0 };
    line_picture(&plot, file(machine, "mix-counts"), &lines)
}

/// The same with what hardware does, by the model; the page's script draws it anew when a figure is changed.
fn projection(
    runs: &[&Run],
    machine: MachineKind,
    model: &Model,
    pictures: &mut Vec<Picture>,
) -> anyhow::Result<String> {
    let runs = with_nested(runs, machine);
    let series: Vec<String> = runs.iter().map(|(label, _, _)| label.clone()).collect();
    let lines: Vec<_> =
        runs.iter().map(|(_, column, run)| line(run, |operation| model.cycles_per_miss(*column, operation))).collect();
    let title = format!("Projected to a real CPU from the counts on {}", machine_name(machine));
    let plot = Plot { title: &title, axis: "cycles for each TLB miss", series: &series, first: 0 };
    let picture = line_picture(&plot, file(machine, "mix-projected"), &lines)?;
    let id = machine_name(machine).to_lowercase();
    let fields: String = model
        .parameters()
        .iter()
        .map(|(name, text, parameter)| {
            let source = escape(&parameter.source);
            format!(
                "<div><label for=\"{id}-{name}\">{text}</label><input id=\"{id}-{name}\" name=\"{name}\" type=\"number\" \
                 min=\"0\" step=\"any\" value=\"{}\"><small>{source}</small></div>",
                parameter.value
            )
        })
        .collect();
    let data = serde_json::to_string(&script_data(&runs))?.replace('<', "\\u003c");
    let html = format!(
        "<section class=\"model\" id=\"{id}\"><h3>What a real CPU would add</h3><p>Cycles for each TLB miss = (instructions × \
         cycles per instruction + exits × cycles per exit) / TLB misses + references per walk × cycles per reference. Change a \
         figure, and the plot follows.</p><form>{fields}</form><figure><div class=\"plot\">{}</div><details><summary>The \
         figures as a table, by the model as it came</summary>{}</details></figure><p class=\"verdict\" \
         aria-live=\"polite\">{}</p><script type=\"application/json\">{data}</script></section>\n",
        picture.svg,
        picture.table,
        verdict(&series, &lines)
    );
    pictures.push(picture);
    Ok(html)
}

/// The runs, and nested paging made of the bare counts where none was measured: these operations have no exits under it.
fn with_nested<'a>(runs: &[&'a Run], machine: MachineKind) -> Vec<(String, Column, &'a Run)> {
    let mut all: Vec<_> = runs.iter().map(|run| (run.column.label(), run.column, *run)).collect();
    let has_nested = runs.iter().any(|run| run.column.mmu == Some(Mmu::Nested));
    if let (false, Some(bare)) = (has_nested, runs.iter().find(|run| run.column.is_bare())) {
        let column = Column { machine, backend: Backend::Bare, mmu: Some(Mmu::Nested), policy: None };
        all.push(("nested, from bare counts".into(), column, *bare));
    }
    all
}

/// What the script needs: for each column its kind and its points.
fn script_data(runs: &[(String, Column, &Run)]) -> serde_json::Value {
    let of = |(label, column, run): &(String, Column, &Run)| {
        let points = line(run, |operation| operation.cost);
        let exits = line(run, |operation| operation.all_exits().unwrap_or(0.0));
        serde_json::json!({
            "label": label,
            "backend": column.backend,
            "nested": column.mmu == Some(Mmu::Nested),
            "x": points.iter().map(|point| point.0).collect::<Vec<_>>(),
            "instructions": points.iter().map(|point| point.1).collect::<Vec<_>>(),
            "exits": exits.iter().map(|point| point.1).collect::<Vec<_>>(),
        })
    };
    serde_json::json!({ "misses": MISSES, "columns": runs.iter().map(of).collect::<Vec<_>>() })
}

/// Where each shadow column becomes dearer than nested paging.
fn verdict(series: &[String], lines: &[Vec<(f64, f64)>]) -> String {
    let Some(nested) = series.iter().position(|name| name.contains("nested")) else { return String::new() };
    let sentence = |(name, line): (&String, &Vec<(f64, f64)>)| {
        let shadow = !name.contains("nested") && name != "bare";
        shadow.then(|| match (crossing(line, &lines[nested]), line.first(), lines[nested].first()) {
            (Some(x), ..) => {
                format!("{name} is dearer than {} from {x:.3} changed entries for each TLB miss on.", series[nested])
            }
            (None, Some(own), Some(other)) if own.1 > other.1 => {
                format!("{name} is dearer than {} throughout.", series[nested])
            }
            _ => format!("{name} is never dearer than {}.", series[nested]),
        })
    };
    series.iter().zip(lines).filter_map(sentence).collect::<Vec<_>>().join(" ")
}

/// Times, with their quartiles in the table.
fn times(results: &Results, body: &mut String, pictures: &mut Vec<Picture>) -> anyhow::Result<()> {
    let runs: Vec<&Run> =
        results.select(BUILT_IN, MachineKind::Qemu, Clock::Wall).into_iter().filter(|run| run.is_measured()).collect();
    if runs.is_empty() {
        return Ok(());
    }
    body.push_str(
        "<h2>QEMU: time</h2>\n<p>Without instruction counting, as a multiple of one pass of an empty loop (two instructions) in the \
         same run; the median of all rounds. It shows what the emulator makes of the work, not what a CPU would.</p>\n",
    );
    let series = labels(&runs);
    let values = |entry: &Entry| runs.iter().map(|run| run.cost(entry.name)).collect::<Vec<_>>();
    let rows: Vec<_> = CATALOG.iter().map(|entry| (entry.name.to_owned(), values(entry))).collect();
    let plot =
        Plot { title: "Time of each operation on QEMU", axis: "passes of an empty loop", series: &series, first: 0 };
    let table = html_table("operation", &series, &rows);
    show(body, pictures, Picture { file: file(MachineKind::Qemu, "time"), svg: plot.dots(&rows)?, table });
    Ok(())
}

fn conditions(results: &Results) -> String {
    let (source, tools) = (&results.source, &results.tools);
    let changed = if source.changed { ", with changes that are not committed" } else { "" };
    let lines = [
        ("Gnomon", format!("commit {}{changed}", source.commit)),
        ("QEMU", format!("{}, CPU model {}", tools.qemu, tools.qemu_cpu)),
        ("Bochs", format!("{}, CPU model {}", tools.bochs, tools.bochs_cpu)),
        ("Compiler", tools.rustc.clone()),
        ("Machine underneath", tools.host.clone()),
        ("Command", results.command.clone()),
    ];
    lines.iter().map(|(what, which)| format!("<dt>{what}</dt><dd>{}</dd>", escape(which))).collect()
}

fn meanings() -> String {
    let of = |family: Family| {
        let items: String =
            of_family(family).map(|entry| format!("<dt>{}</dt><dd>{}</dd>", entry.name, escape(entry.about))).collect();
        format!("<h3>{}</h3><dl>{items}</dl>", family.title())
    };
    Family::ALL.map(of).concat()
}
