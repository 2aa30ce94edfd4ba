//! The targets as bars: how far each result is from its target.

use std::error::Error;
use std::io;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::RowResult;
use crate::rows::Target;

const WIDTH: u32 = 960;
const BAR: u32 = 26;
const MARGINS: u32 = 90;
const LABELS: u32 = 400;
const MET: RGBColor = RGBColor(0x3b, 0x8f, 0x5a);
const MISSED: RGBColor = RGBColor(0xc4, 0x4e, 0x3b);

struct Bar {
    label: String,
    /// Result by target, or target by result where more is better: 1 is on target, less is better.
    from: f64,
    to: f64,
    median: f64,
}

pub(crate) fn draw(rows: &[RowResult]) -> io::Result<String> {
    let mut svg = String::new();
    draw_into(&mut svg, &bars(rows)).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(svg)
}

fn bars(rows: &[RowResult]) -> Vec<Bar> {
    let mut bars = Vec::new();
    for row in rows {
        for check in &row.checks {
            let Some(spread) = check.spread else { continue };
            let against = check.target.against();
            let against = against.map_or(String::new(), |other| format!(", against {other}"));
            let bound = check.target.bound();
            let part = |value: f64| match check.target {
                Target::Better(..) => bound / value,
                _ => value / bound,
            };
            bars.push(Bar {
                label: format!("{}: {}{against}", row.name, check.what()),
                from: part(spread.min),
                to: part(spread.max),
                median: part(spread.median),
            });
        }
    }
    bars
}

fn draw_into(svg: &mut String, bars: &[Bar]) -> Result<(), Box<dyn Error>> {
    let height = BAR * bars.len() as u32 + MARGINS;
    let root = SVGBackend::with_string(svg, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let parts = || bars.iter().flat_map(|bar| [bar.from, bar.to]);
    // With some room, so that the shortest bar is seen.
    let least = parts().fold(0.1, |least: f64, part| match part > 0.0 {
        true => least.min(part * 0.8),
        false => least,
    });
    let most = parts().fold(10.0, f64::max);
    let mut chart = ChartBuilder::on(&root)
        .caption("Result by target: left of 1 is met", ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(LABELS)
        .build_cartesian_2d((least..most).log_scale(), 0.0..bars.len() as f64)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_label_formatter(&|part| format!("{part}×"))
        .draw()?;
    let right = TextStyle::from(("sans-serif", 13).into_font());
    let right = right.pos(Pos::new(HPos::Right, VPos::Center));
    for (index, bar) in bars.iter().enumerate() {
        let bottom = (bars.len() - 1 - index) as f64;
        let color = if bar.median <= 1.0 { MET } else { MISSED };
        let corners = [
            (least, bottom + 0.25),
            (bar.median.max(least), bottom + 0.75),
        ];
        let spread = [
            (bar.from.max(least), bottom + 0.5),
            (bar.to.max(least), bottom + 0.5),
        ];
        let middle = chart.backend_coord(&(least, bottom + 0.5));
        root.draw(&Text::new(
            bar.label.as_str(),
            (middle.0 - 8, middle.1),
            right.clone(),
        ))?;
        chart.draw_series([Rectangle::new(corners, color.filled())])?;
        chart.draw_series([PathElement::new(spread, BLACK.stroke_width(2))])?;
    }
    let line = [(1.0, 0.0), (1.0, bars.len() as f64)];
    chart.draw_series([PathElement::new(line, BLACK)])?;
    root.present()?;
    Ok(())
}
