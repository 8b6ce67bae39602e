//! The plot: payments per second by number of connections.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;

use super::{Report, Series};

/// Colours that most people can tell apart (Okabe and Ito).
const SERIES: [(Series, RGBColor); 7] = [
    (Series::Payonce, RGBColor(0, 114, 178)),
    (Series::PayonceAlone, RGBColor(86, 180, 233)),
    (Series::Reference, RGBColor(213, 94, 0)),
    (Series::TwoPhase, RGBColor(204, 121, 167)),
    (Series::Pgbench, RGBColor(0, 158, 115)),
    (Series::Against, RGBColor(230, 159, 0)),
    (Series::Yardstick, RGBColor(0, 0, 0)),
];

/// A series, its colour, and its points: connections and payments a second.
type Line = (Series, RGBColor, Vec<(f64, f64)>);

/// Draws it. Without fresh payments the plot is empty.
pub fn draw(report: &Report, path: &Path) -> anyhow::Result<()> {
    let lines: Vec<Line> = SERIES
        .iter()
        .map(|(series, colour)| (*series, *colour, points(report, *series)))
        .filter(|(.., points)| !points.is_empty())
        .collect();
    let all = || lines.iter().flat_map(|(.., points)| points);
    let most = all().map(|(_, rate)| *rate).fold(1.0, f64::max);
    let widest = all()
        .map(|(connections, _)| *connections)
        .fold(2.0, f64::max);
    draw_lines(&lines, widest, most * 1.08, path).map_err(|error| anyhow!("{error}"))
}

fn points(report: &Report, series: Series) -> Vec<(f64, f64)> {
    let connections = report.connections_of(series).into_iter();
    connections
        .filter_map(|count| Some((f64::from(count), report.rate(series, count)?)))
        .collect()
}

fn draw_lines(
    lines: &[Line],
    widest: f64,
    most: f64,
    path: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, (860, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .caption("New payments a second", ("sans-serif", 22))
        .build_cartesian_2d((1.0..widest).log_scale().base(2.0), 0.0..most)?;
    chart
        .configure_mesh()
        .x_desc("connections (clients of pgbench)")
        .x_label_formatter(&|connections| format!("{connections:.0}"))
        .y_label_formatter(&|rate| format!("{rate:.0}"))
        .label_style(("sans-serif", 14))
        .light_line_style(WHITE)
        .draw()?;
    for (series, colour, points) in lines {
        let style = colour.stroke_width(3);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))?
            .label(series.label())
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 24, y)], style));
        let dots = points
            .iter()
            .map(|point| Circle::new(*point, 4, colour.filled()));
        chart.draw_series(dots)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 14))
        .draw()?;
    root.present()?;
    Ok(())
}
