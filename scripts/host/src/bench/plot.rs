//! The plots, as SVG.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Series that can be told apart: a bare column, five policies, two with hardware.
const SERIES: usize = 8;
/// Colours that differ for colour-blind readers and have contrast to white; each series has its own mark as well.
const COLOURS: [RGBColor; SERIES] = [
    RGBColor(0, 0, 0),
    RGBColor(0, 96, 160),
    RGBColor(190, 75, 0),
    RGBColor(0, 115, 80),
    RGBColor(150, 50, 110),
    RGBColor(95, 75, 0),
    RGBColor(175, 30, 45),
    RGBColor(70, 70, 170),
];
const FONT: &str = "sans-serif";
const WIDTH: u32 = 980;
/// Pixels for each row of a dot plot.
const ROW: u32 = 22;
const MARGIN_LEFT: u32 = 190;
/// Fifths of a pixel for each letter of the legend: so that the longest one, of the whole matrix, fits.
const LETTER: i32 = 36;
const TOP: u32 = 64;
const BOTTOM: u32 = 62;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A plot: rows of values, or lines.
#[derive(Debug)]
pub(super) struct Plot<'a> {
    /// What it shows.
    pub(super) title: &'a str,
    /// What the values are.
    pub(super) axis: &'a str,
    /// The columns.
    pub(super) series: &'a [String],
    /// The mark of the first of them: a column has the same in each plot.
    pub(super) first: usize,
}

/// The result of a drawing. The back end writes into a string and cannot fail.
type Drawn = anyhow::Result<String>;

impl Plot<'_> {
    /// A row for each operation, a mark for each series, on a log scale. What is not above zero is left out.
    pub(super) fn dots(&self, rows: &[(String, Vec<Option<f64>>)]) -> Drawn {
        let height = TOP + BOTTOM + ROW * rows.len() as u32;
        let all = || rows.iter().flat_map(|(_, values)| values.iter().flatten().copied()).filter(|value| *value > 0.0);
        let low = decade(all().fold(1.0, f64::min).log10().floor());
        let high = decade(all().fold(10.0, f64::max).log10().ceil());
        self.draw(height, |area| {
            let mut chart = ChartBuilder::on(area)
                .margin_top(TOP)
                .margin_right(48)
                .x_label_area_size(BOTTOM)
                .y_label_area_size(MARGIN_LEFT)
                .build_cartesian_2d((low..high).log_scale(), 0.0..rows.len() as f64)
                .map_err(failed)?;
            chart
                .configure_mesh()
                .disable_y_mesh()
                .disable_y_axis()
                .x_desc(self.axis)
                .x_label_formatter(&|value| label(*value))
                .x_label_style((FONT, 17))
                .axis_desc_style((FONT, 18))
                .light_line_style(RGBColor(240, 240, 240))
                .bold_line_style(RGBColor(205, 205, 205))
                .draw()
                .map_err(failed)?;
            let place = |index: usize| rows.len() as f64 - index as f64 - 0.5;
            for (index, (_, values)) in rows.iter().enumerate() {
                let line = [(low, place(index)), (high, place(index))];
                let style = RGBColor(228, 228, 228).stroke_width(1);
                chart.draw_series([PathElement::new(line.to_vec(), style)]).map_err(failed)?;
                for (series, value) in values.iter().enumerate() {
                    if let Some(value) = value.filter(|value| *value > 0.0) {
                        let at = chart.backend_coord(&(value, place(index)));
                        mark(area, self.first + series, at)?;
                    }
                }
            }
            for (index, (name, _)) in rows.iter().enumerate() {
                let (_, y) = chart.backend_coord(&(low, place(index)));
                let style = text(17).pos(Pos::new(HPos::Right, VPos::Center));
                area.draw(&Text::new(name.clone(), (MARGIN_LEFT as i32 - 8, y), style)).map_err(failed)?;
            }
            Ok(())
        })
    }

    /// A line for each series, on a log scale. `x` says what the first of each pair is.
    pub(super) fn lines(&self, x: &str, lines: &[Vec<(f64, f64)>]) -> Drawn {
        let all = || lines.iter().flatten().map(|point| point.1).filter(|value| *value > 0.0);
        let low = decade(all().fold(f64::MAX, f64::min).min(1e6).log10().floor());
        let high = decade(all().fold(10.0, f64::max).log10().ceil());
        let right = lines.iter().flatten().map(|point| point.0).fold(0.1, f64::max);
        self.draw(460, |area| {
            let mut chart = ChartBuilder::on(area)
                .margin_top(TOP)
                .margin_right(48)
                .x_label_area_size(BOTTOM)
                .margin_left(16)
                .y_label_area_size(90)
                .build_cartesian_2d(0.0..right, (low..high).log_scale())
                .map_err(failed)?;
            chart
                .configure_mesh()
                .x_desc(x)
                .y_desc(self.axis)
                .y_label_formatter(&|value| label(*value))
                .label_style((FONT, 17))
                .axis_desc_style((FONT, 18))
                .light_line_style(RGBColor(240, 240, 240))
                .bold_line_style(RGBColor(205, 205, 205))
                .draw()
                .map_err(failed)?;
            for (series, line) in lines.iter().enumerate() {
                let style = colour(self.first + series).stroke_width(2);
                chart.draw_series([PathElement::new(line.clone(), style)]).map_err(failed)?;
                for point in line {
                    let at = chart.backend_coord(point);
                    mark(area, self.first + series, at)?;
                }
            }
            Ok(())
        })
    }

    fn draw(&self, height: u32, content: impl FnOnce(&Area<'_>) -> anyhow::Result<()>) -> Drawn {
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
            area.fill(&WHITE).map_err(failed)?;
            area.draw(&Text::new(self.title.to_owned(), (12, 8), text(22))).map_err(failed)?;
            self.legend(&area)?;
            content(&area)?;
            area.present().map_err(failed)?;
        }
        Ok(named(&svg, self.title))
    }

    fn legend(&self, area: &Area<'_>) -> anyhow::Result<()> {
        let mut x = 18;
        for (index, name) in self.series.iter().enumerate() {
            mark(area, self.first + index, (x, 44))?;
            area.draw(&Text::new(name.clone(), (x + 12, 35), text(17))).map_err(failed)?;
            x += 26 + LETTER * name.len() as i32 / 5;
        }
        Ok(())
    }
}

/// Gives the picture a name for those who do not see it, and lets it shrink with the page.
fn named(svg: &str, title: &str) -> String {
    let title = escape(title);
    let head = format!("<svg role=\"img\" aria-label=\"{title}\" ");
    svg.replacen("<svg ", &head, 1)
}

/// Text as HTML and SVG want it.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow::anyhow!("drawing a plot: {error}")
}

fn decade(exponent: f64) -> f64 {
    10_f64.powf(exponent)
}

/// `1,000`; decimals below 1.
fn label(value: f64) -> String {
    if value < 0.999 { format!("{value}") } else { super::table::figure(value.round()) }
}

fn colour(series: usize) -> RGBColor {
    COLOURS[series % COLOURS.len()]
}

fn text(size: u32) -> TextStyle<'static> {
    (FONT, size).into_font().color(&RGBColor(20, 20, 20))
}

/// The mark of a series: each has a shape of its own.
fn mark(area: &Area<'_>, series: usize, (x, y): (i32, i32)) -> anyhow::Result<()> {
    let filled = colour(series).filled();
    let line = colour(series).stroke_width(2);
    let polygon = |points: &[(i32, i32)]| {
        Polygon::new(points.iter().map(|(dx, dy)| (x + dx, y + dy)).collect::<Vec<_>>(), filled)
    };
    let drawn = match series % SERIES {
        0 => area.draw(&Rectangle::new([(x - 1, y - 7), (x + 1, y + 7)], filled)),
        1 => area.draw(&Circle::new((x, y), 5, filled)),
        2 => area.draw(&polygon(&[(0, -6), (6, 5), (-6, 5)])),
        3 => area.draw(&polygon(&[(0, -6), (6, 0), (0, 6), (-6, 0)])),
        4 => area.draw(&Circle::new((x, y), 5, line)),
        5 => area.draw(&Rectangle::new([(x - 5, y - 5), (x + 5, y + 5)], line)),
        6 => area.draw(&polygon(&[(0, 6), (6, -5), (-6, -5)])),
        _ => area.draw(&polygon(&[
            (-2, -6),
            (2, -6),
            (2, -2),
            (6, -2),
            (6, 2),
            (2, 2),
            (2, 6),
            (-2, 6),
            (-2, 2),
            (-6, 2),
            (-6, -2),
            (-2, -2),
        ])),
    };
    drawn.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::super::column::{Column, Wanted};
    use super::*;
    use crate::cli::MachineKind;

    #[test]
    fn each_column_of_an_emulator_has_a_mark_of_its_own_and_fits_the_legend() {
        let columns = Column::matrix(Wanted { machines: &[MachineKind::Qemu], backends: &[], policies: &[] });
        assert_eq!(columns.len(), SERIES);
        let letters = columns.iter().map(|column| column.label().len() as i32).sum::<i32>();
        assert!(18 + 26 * SERIES as i32 + LETTER * letters / 5 < WIDTH as i32);
    }

    #[test]
    fn plots_have_a_name_and_their_labels() {
        let series = ["bare".to_owned(), "depriv".to_owned()];
        let plot = Plot { title: "Cost & more", axis: "instructions", series: &series, first: 0 };
        let svg = plot
            .dots(&[("int80".into(), vec![Some(4.0), Some(3400.0)]), ("cli".into(), vec![Some(0.0), None])])
            .unwrap();
        for part in ["role=\"img\"", "aria-label=\"Cost &amp; more\"", "int80", "cli", "1,000", "depriv"] {
            assert!(svg.contains(part), "{part}");
        }
        let svg = plot.lines("ratio", &[vec![(0.0, 10.0), (1.0, 100.0)]]).unwrap();
        assert!(svg.contains("ratio") && svg.contains("instructions"));
    }
}
