//! Charts as SVG. Each has a title and a sentence for readers who cannot see it, and a table beside it has the same figures.

use maud::{Markup, html};

use super::traffic::MINUTES;

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 150.0;
/// Where the drawing begins, right of the scale and above the hours.
const LEFT: f64 = 44.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 128.0;

/// A chart of the last hour, a minute a step.
pub(super) struct Chart<'a> {
    /// Its id within the page.
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    /// A sentence that describes it.
    pub(super) description: &'a str,
}

impl Chart<'_> {
    /// Two series of counts, the second on top of the first.
    pub(super) fn stacked(&self, names: [&str; 2], series: &[[u64; 2]; MINUTES]) -> Markup {
        let highest = series.iter().map(|[one, two]| one + two).max().unwrap_or(0);
        let scale = nice_ceiling(highest);
        let bars = series.iter().enumerate().map(|(minute, [one, two])| {
            let (x, width) = (x_of(minute) + 0.5, step() - 1.0);
            let (top_of_one, top_of_all) = (y_of(*one, scale), y_of(one + two, scale));
            html! {
                @if *one > 0 {
                    rect .one x=(px(x)) y=(px(top_of_one)) width=(px(width)) height=(px(BOTTOM - top_of_one)) {}
                }
                @if *two > 0 {
                    rect .two x=(px(x)) y=(px(top_of_all)) width=(px(width)) height=(px(top_of_one - top_of_all)) {}
                }
            }
        });
        let legend = html! {
            p .legend {
                @for (name, class) in names.iter().zip(["one", "two"]) {
                    span {
                        svg viewBox="0 0 8 8" aria-hidden="true" { rect class=(class) width="8" height="8" {} }
                        (name)
                    }
                }
            }
        };
        self.figure(
            &scale.to_string(),
            html! { @for bar in bars { (bar) } },
            legend,
        )
    }

    /// A share of each minute, 0 to 100 %; `None` where there was nothing to share.
    pub(super) fn share(&self, name: &str, series: &[Option<f64>; MINUTES]) -> Markup {
        let points = series.iter().enumerate().filter_map(|(minute, share)| {
            let y = BOTTOM - share.as_ref()? * (BOTTOM - TOP);
            Some((x_of(minute) + step() / 2.0, y))
        });
        let points: Vec<(f64, f64)> = points.collect();
        let line: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let drawing = html! {
            polyline .curve points=(line.join(" ")) {}
            @for (x, y) in &points { circle .one cx=(px(*x)) cy=(px(*y)) r="2" {} }
        };
        self.figure("100 %", drawing, html! { p .legend { span { (name) } } })
    }

    fn figure(&self, highest: &str, drawing: Markup, legend: Markup) -> Markup {
        let (title_id, description_id) =
            (format!("{}-title", self.id), format!("{}-text", self.id));
        let names = format!("{title_id} {description_id}");
        html! {
            figure .card {
                figcaption { (self.title) }
                svg .chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-labelledby=(names) {
                    title id=(title_id) { (self.title) }
                    desc id=(description_id) { (self.description) }
                    line x1=(LEFT) y1=(TOP) x2=(WIDTH) y2=(TOP) {}
                    line x1=(LEFT) y1=(BOTTOM) x2=(WIDTH) y2=(BOTTOM) {}
                    text x=(LEFT - 6.0) y=(TOP + 4.0) text-anchor="end" { (highest) }
                    text x=(LEFT - 6.0) y=(BOTTOM + 4.0) text-anchor="end" { "0" }
                    text x=(LEFT) y=(HEIGHT - 4.0) { "60 min ago" }
                    text x=(WIDTH) y=(HEIGHT - 4.0) text-anchor="end" { "now" }
                    (drawing)
                }
                (legend)
            }
        }
    }
}

fn step() -> f64 {
    (WIDTH - LEFT) / as_f64(MINUTES as u64)
}

fn x_of(minute: usize) -> f64 {
    LEFT + step() * as_f64(minute as u64)
}

fn y_of(count: u64, scale: u64) -> f64 {
    BOTTOM - as_f64(count) / as_f64(scale) * (BOTTOM - TOP)
}

/// Exact up to 2^53, which is finer than a pixel.
fn as_f64(count: u64) -> f64 {
    count as f64
}

/// A screen shows no more than a tenth of a unit.
fn px(length: f64) -> String {
    format!("{length:.1}")
}

/// Rounds up to one of 1, 2, 5, 10, 20, 50 …, so that scales are easy to read.
fn nice_ceiling(count: u64) -> u64 {
    let mut power: u64 = 1;
    loop {
        for step in [1, 2, 5] {
            let scale = power.saturating_mul(step);
            if scale >= count {
                return scale;
            }
        }
        power = power.saturating_mul(10);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_round_and_cover_the_highest() {
        for (count, scale) in [
            (0, 1),
            (1, 1),
            (2, 2),
            (3, 5),
            (5, 5),
            (6, 10),
            (11, 20),
            (51, 100),
            (1001, 2000),
        ] {
            assert_eq!(nice_ceiling(count), scale, "{count}");
        }
        assert_eq!(nice_ceiling(u64::MAX), u64::MAX);
    }

    #[test]
    fn bars_stand_on_each_other_and_stay_inside() {
        let mut series = [[0, 0]; MINUTES];
        series[MINUTES - 1] = [1, 1];
        let chart = Chart {
            id: "c",
            title: "T",
            description: "D",
        };
        let drawn = chart.stacked(["a", "b"], &series).into_string();
        assert!(
            drawn.contains(r#"y="69.0" width="4.3" height="59.0""#),
            "{drawn}"
        );
        assert!(
            drawn.contains(r#"y="10.0" width="4.3" height="59.0""#),
            "{drawn}"
        );
        assert_eq!(
            drawn.matches("<rect class=\"one\" x").count(),
            1,
            "empty minutes draw nothing"
        );
    }
}
