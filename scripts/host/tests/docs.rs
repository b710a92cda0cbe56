//! The documents say what the code says: files that they name exist, and Rust that they quote is there, line by line.

use std::fs;
use std::path::Path;

use gnomon_host::workspace;

const DOCUMENTS: [&str; 4] = ["README.md", "docs/architecture.md", "docs/invariants.md", "docs/tour.md"];
/// Where code is.
const FOLDERS: [&str; 7] = ["bench", "boot", "docs", "kernel", "scripts", "shadow-mmu", "tests"];
const ENDINGS: [&str; 4] = ["rs", "S", "s", "md"];
/// Stands for lines that a quotation leaves out.
const LEFT_OUT: &str = "...";

struct File {
    /// From the root, `/` before it.
    path: String,
    /// Without what they are indented by.
    lines: Vec<String>,
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(|line| line.trim().to_owned()).collect()
}

fn collect(folder: &Path, root: &Path, files: &mut Vec<File>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            if entry.file_name() != "target" {
                collect(&path, root, files);
            }
        } else if path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known)) {
            let name = path.strip_prefix(root).unwrap().display();
            files.push(File { path: format!("/{name}"), lines: lines(&fs::read_to_string(&path).unwrap()) });
        }
    }
}

fn files() -> Vec<File> {
    let (root, mut files) = (workspace::root(), Vec::new());
    for folder in FOLDERS {
        collect(&root.join(folder), &root, &mut files);
    }
    files
}

/// The documents' names and texts.
fn documents() -> impl Iterator<Item = (&'static str, String)> {
    DOCUMENTS.into_iter().map(|name| (name, fs::read_to_string(workspace::root().join(name)).unwrap()))
}

/// What stands between backticks and looks like a file's name.
fn named_files(text: &str) -> impl Iterator<Item = &str> {
    let is_name = |word: &&str| {
        let ending = word.rsplit_once('.').map(|(_, ending)| ending);
        !word.contains([' ', '*', '\n']) && ENDINGS.iter().any(|known| ending == Some(known))
    };
    text.split('`').skip(1).step_by(2).filter(is_name)
}

#[test]
fn named_files_exist() {
    let files = files();
    let mut checked = 0;
    for (document, text) in documents() {
        for name in named_files(&text) {
            let found = name == "README.md" || files.iter().any(|file| file.path.ends_with(&format!("/{name}")));
            assert!(found, "{document} names `{name}`, which does not exist");
            checked += 1;
        }
    }
    assert!(checked > 50, "only {checked} names were found");
}

#[test]
fn quoted_rust_exists() {
    let files = files();
    let mut checked = 0;
    for (document, text) in documents() {
        for block in text.split("```rust\n").skip(1) {
            let (block, _) = block.split_once("```").expect("an end of the quotation");
            for part in lines(block).split(|line| line == LEFT_OUT).filter(|part| !part.is_empty()) {
                let quoted = |file: &File| file.lines.windows(part.len()).any(|window| window == part);
                assert!(files.iter().any(quoted), "{document} quotes what no file has:\n{}", part.join("\n"));
                checked += 1;
            }
        }
    }
    assert!(checked >= 5, "only {checked} quotations were found");
}
