//! What the report owes to people who do not see it, or not well: a basic check of the page made of the committed results (WCAG 2.2: text
//! alternatives, contrast, labels, headings, language). `gnomon bench page` looks at it in a browser.

use std::collections::BTreeSet;

use super::{Picture, Results, render};
use crate::workspace;

/// Least contrast of text, and of marks and borders.
const TEXT: f64 = 4.5;
const GRAPHICS: f64 = 3.0;
const WHITE: &str = "#ffffff";

fn page() -> (String, Vec<Picture>) {
    render(&Results::load(&workspace::root().join("bench")).unwrap()).unwrap()
}

/// The tags of a name, whole.
fn tags<'a>(html: &'a str, name: &str) -> Vec<&'a str> {
    let begins = |tag: &&str| tag[1..].strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '>', '/']));
    html.split_inclusive('>').filter_map(|part| part.rfind('<').map(|at| &part[at..])).filter(begins).collect()
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

fn channel(text: &str) -> f64 {
    let value = f64::from(u8::from_str_radix(text, 16).unwrap()) / 255.0;
    if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
}

/// Relative luminance of `#rgb` or `#rrggbb`.
fn luminance(colour: &str) -> f64 {
    let digits = colour.trim_start_matches('#');
    let wide: String = if digits.len() == 3 { digits.chars().flat_map(|c| [c, c]).collect() } else { digits.into() };
    0.2126 * channel(&wide[0..2]) + 0.7152 * channel(&wide[2..4]) + 0.0722 * channel(&wide[4..6])
}

fn contrast(one: &str, other: &str) -> f64 {
    let (one, other) = (luminance(one), luminance(other));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

/// Hexadecimal colours behind a property of the style sheet.
fn colours<'a>(style: &'a str, property: &'a str) -> impl Iterator<Item = &'a str> {
    style.split([';', '{', '}']).filter_map(move |rule| {
        let (name, value) = rule.split_once(':')?;
        (name.trim() == property).then(|| value.split_whitespace().find(|word| word.starts_with('#')))?
    })
}

#[test]
fn contrast_is_that_of_the_standard() {
    assert!((contrast("#000", WHITE) - 21.0).abs() < 0.01);
    assert!((contrast("#767676", WHITE) - 4.54).abs() < 0.01);
}

#[test]
fn every_picture_has_a_name_and_its_figures_as_a_table() {
    let (html, pictures) = page();
    assert!(!pictures.is_empty());
    for Picture { file, svg, table } in &pictures {
        let root = tags(svg, "svg")[0];
        assert_eq!(attribute(root, "role"), Some("img"), "{file}");
        assert!(attribute(root, "aria-label").is_some_and(|name| name.len() > 8), "{file}");
        assert!(html.contains(table.as_str()), "{file}: no table");
    }
    // The script draws plots too.
    let html = html.split("<script>").next().unwrap();
    assert_eq!(tags(html, "svg").len(), pictures.len());
    assert_eq!(tags(html, "figure").len(), pictures.len());
    assert!(tags(html, "th").iter().all(|cell| attribute(cell, "scope").is_some()));
}

#[test]
fn every_field_has_a_label_and_names_are_unique() {
    let (html, _) = page();
    let fields = tags(&html, "input");
    assert!(!fields.is_empty());
    let labelled: BTreeSet<_> = tags(&html, "label").iter().filter_map(|label| attribute(label, "for")).collect();
    for field in fields {
        assert!(attribute(field, "id").is_some_and(|id| labelled.contains(id)), "{field}");
    }
    let ids: Vec<_> = html.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "an id twice");
}

#[test]
fn the_page_has_a_language_a_title_and_headings_in_order() {
    let (html, _) = page();
    assert_eq!(attribute(tags(&html, "html")[0], "lang"), Some("en"));
    assert!(html.contains("<title>Gnomon"));
    let mut last = 0;
    for level in html.split("<h").skip(1).filter_map(|rest| rest[..1].parse::<u32>().ok()) {
        assert!(level <= last + 1, "h{level} behind h{last}");
        last = level;
    }
    assert_eq!(tags(&html, "h1").len(), 1);
}

#[test]
fn text_and_marks_stand_out() {
    let style = include_str!("style.css");
    for text in colours(style, "color") {
        for ground in colours(style, "background") {
            assert!(contrast(text, ground) >= TEXT, "{text} on {ground}");
        }
    }
    for border in colours(style, "border").chain(colours(style, "outline")) {
        assert!(contrast(border, WHITE) >= GRAPHICS, "{border}");
    }
    let (_, pictures) = page();
    for Picture { file, svg, .. } in &pictures {
        for text in tags(svg, "text") {
            let fill = attribute(text, "fill").unwrap();
            assert!(contrast(fill, WHITE) >= TEXT, "{file}: {text}");
            let size: f64 = attribute(text, "font-size").unwrap().parse().unwrap();
            assert!(size >= 13.0, "{file}: {size}");
        }
        for mark in ["circle", "polygon", "polyline"].iter().flat_map(|name| tags(svg, name)) {
            let colour =
                [attribute(mark, "fill"), attribute(mark, "stroke")].into_iter().flatten().find(|c| c.len() == 7);
            let Some(colour) = colour else { continue };
            let grid = attribute(mark, "points").is_some() && luminance(colour) > 0.5;
            assert!(grid || contrast(colour, WHITE) >= GRAPHICS, "{file}: {mark}");
        }
    }
}

#[test]
fn the_page_asks_the_net_for_nothing() {
    let (html, _) = page();
    for reference in ["src=", "href=", "@import", "url(", "fetch("] {
        assert!(!html.contains(reference), "{reference}");
    }
}
