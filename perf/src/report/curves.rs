//! CPU per message over the rate, or over a size: a panel for each kind of work, a line for each side.

use std::error::Error;
use std::io;
use std::ops::Range;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::RowResult;
use crate::rows::Metric;

const WIDTH: u32 = 960;
const PANEL: u32 = 320;
/// Number of panels beside each other.
const COLUMNS: usize = 2;
/// Number of labels of an axis.
const LABELS: usize = 5;

struct Panel {
    work: &'static str,
    quantity: &'static str,
    lines: Vec<Line>,
}

struct Line {
    side: &'static str,
    /// Pairs of a rate or size, and the CPU of one message in µs.
    points: Vec<(f64, f64)>,
}

pub(super) fn draw(rows: &[RowResult]) -> io::Result<String> {
    let mut svg = String::new();
    draw_into(&mut svg, &panels(rows)).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(svg)
}

fn panels(rows: &[RowResult]) -> Vec<Panel> {
    let mut panels: Vec<Panel> = Vec::new();
    for row in rows {
        let Some(point) = row.point else {
            continue;
        };
        let same = |panel: &Panel| (panel.work, panel.quantity) == (point.work, point.quantity);
        let at = panels.iter().position(same).unwrap_or_else(|| {
            panels.push(Panel {
                work: point.work,
                quantity: point.quantity,
                lines: Vec::new(),
            });
            panels.len() - 1
        });
        let lines = &mut panels[at].lines;
        for side in &row.sides {
            let Some(cpu) = side.median(Metric::CpuUs) else {
                continue;
            };
            let point = (f64::from(point.value), cpu);
            match lines.iter_mut().find(|line| line.side == side.name) {
                Some(line) => line.points.push(point),
                None => lines.push(Line {
                    side: side.name,
                    points: vec![point],
                }),
            }
        }
    }
    panels.retain(|panel| !panel.lines.is_empty());
    panels
}

fn draw_into(svg: &mut String, panels: &[Panel]) -> Result<(), Box<dyn Error>> {
    let rows = panels.len().div_ceil(COLUMNS);
    let height = PANEL * rows.max(1) as u32;
    let root = SVGBackend::with_string(svg, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    // Panels of one quantity have the same axes, so that they can be compared.
    for (area, panel) in root.split_evenly((rows.max(1), COLUMNS)).iter().zip(panels) {
        let alike = panels
            .iter()
            .filter(|other| other.quantity == panel.quantity);
        let lines = alike.flat_map(|panel| &panel.lines);
        let points: Vec<_> = lines.flat_map(|line| &line.points).collect();
        let values = range(points.iter().map(|point| point.0));
        let cpu = range(points.iter().map(|point| point.1));
        draw_panel(area, panel, [&values, &cpu])?;
    }
    root.present()?;
    Ok(())
}

/// Returns a range around these numbers. It has some room, so that no point lies on the frame.
fn range(numbers: impl Iterator<Item = f64> + Clone) -> Range<f64> {
    let least = numbers.clone().fold(f64::INFINITY, f64::min);
    let most = numbers.fold(0.0, f64::max);
    least * 0.8..most * 1.25
}

fn draw_panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    panel: &Panel,
    [values, cpu]: [&Range<f64>; 2],
) -> Result<(), Box<dyn Error>> {
    let mut chart = ChartBuilder::on(area)
        .caption(panel.work, ("sans-serif", 14))
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(values.clone().log_scale(), cpu.clone().log_scale())?;
    chart
        .configure_mesh()
        .x_desc(panel.quantity)
        .y_desc("CPU per message, µs")
        .x_labels(LABELS)
        .y_labels(LABELS)
        .max_light_lines(0)
        .x_label_formatter(&|value| format!("{value}"))
        .y_label_formatter(&|cpu| format!("{cpu}"))
        .draw()?;
    for line in &panel.lines {
        let color = color(line.side);
        let dot = |&point: &(f64, f64)| Circle::new(point, 3, color.filled());
        chart.draw_series(line.points.iter().map(dot))?;
        let path = PathElement::new(line.points.clone(), color.stroke_width(2));
        chart
            .draw_series([path])?
            .label(line.side)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.4))
        .draw()?;
    Ok(())
}

/// Returns the color of a side, the same in all panels.
fn color(side: &str) -> RGBColor {
    match side {
        "tangelo" => RGBColor(0x3b, 0x8f, 0x5a),
        "turn_min 0" => RGBColor(0x2f, 0x6d, 0xb5),
        "ceiling" => RGBColor(0x80, 0x80, 0x80),
        "Pomelo" => RGBColor(0xc4, 0x4e, 0x3b),
        _ => RGBColor(0x8a, 0x5f, 0xa8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Numbers, Round, SideResult};
    use crate::rows::Point;

    #[test]
    fn rows_of_one_work_share_a_panel_and_a_side_has_one_line() {
        let row = |rate, cpu| RowResult {
            name: "open-echo",
            work: "echo",
            point: Some(Point {
                work: "echo",
                quantity: "messages a second",
                value: rate,
            }),
            sides: vec![SideResult {
                name: "tangelo",
                command: String::new(),
                rounds: vec![Round::Measured(Numbers::from([(Metric::CpuUs, cpu)]))],
            }],
            checks: Vec::new(),
        };
        let rows = [row(2_000, 40.0), row(10_000, 20.0)];
        let panels = panels(&rows);
        assert_eq!(panels.len(), 1);
        assert_eq!(
            panels[0].lines[0].points,
            [(2_000.0, 40.0), (10_000.0, 20.0)]
        );
        let svg = draw(&rows).unwrap();
        assert!(
            svg.contains("tangelo") && svg.contains("messages a second"),
            "{svg}"
        );
        assert!(draw(&[]).unwrap().contains("<svg"));
    }
}
