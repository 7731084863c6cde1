//! How well plans predicted, as OpenMetrics: all workflows together, so that the number of series is fixed.
//!
//! Per workflow and task the same figures are at `/v1/workflows/{workflow}/scores`. The counters let a
//! monitoring system take the coverage over a window of its own: the
//! rate of `metad_prediction_within_total` over that of `metad_prediction_scored_total`.

use foresail_model::Scores;
use foresail_schemas::metric::Forecast;

use super::{head, line};

/// Appends the families. Ratio and error have no sample while nothing was scored: there is no right value.
pub(super) fn write(out: &mut String, scores: &Scores) {
    let name = "metad_prediction_scored";
    head(out, name, "counter", "Executions whose forecast by a plan was scored.");
    line(out, &format!("{name}_total"), scores.n());
    let name = "metad_prediction_within";
    head(out, name, "counter", "Executions that took no longer than the forecast quantile.");
    for (sla, within) in Forecast::SLAS.iter().zip(scores.within()) {
        line(out, &format!("{name}_total{{quantile=\"{}\"}}", sla.quantile().unwrap_or_default()), within);
    }
    let score = scores.score();
    let name = "metad_prediction_coverage_ratio";
    head(out, name, "gauge", "Share of executions that took no longer than the forecast quantile.");
    for (sla, ratio) in &score.ratio {
        line(out, &format!("{name}{{quantile=\"{}\"}}", sla.quantile().unwrap_or_default()), ratio);
    }
    let name = "metad_prediction_mdape_ratio";
    head(out, name, "gauge", "Median absolute error of forecast medians, as a part of the measured time.");
    if let Some(percent) = score.mdape_percent {
        line(out, name, percent / 100.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_quantile_has_its_ratio_and_nothing_scored_has_none() {
        let mut scores = Scores::default();
        let text = |scores: &Scores| {
            let mut out = String::new();
            write(&mut out, scores);
            out
        };
        assert!(text(&scores).contains("metad_prediction_scored_total 0\n"));
        assert!(!text(&scores).contains("metad_prediction_coverage_ratio{"));
        for exec_ms in [90.0, 100.0, 125.0, 190.0] {
            scores.record(&Forecast::new([100.0, 120.0, 130.0, 200.0]), exec_ms, 0);
        }
        let text = text(&scores);
        for expected in [
            "# TYPE metad_prediction_coverage_ratio gauge\n",
            "metad_prediction_coverage_ratio{quantile=\"0.5\"} 0.5\n",
            "metad_prediction_coverage_ratio{quantile=\"0.9\"} 0.5\n",
            "metad_prediction_coverage_ratio{quantile=\"0.95\"} 0.75\n",
            "metad_prediction_coverage_ratio{quantile=\"0.99\"} 1\n",
            "metad_prediction_within_total{quantile=\"0.95\"} 3\n",
            "metad_prediction_scored_total 4\n",
            "metad_prediction_mdape_ratio 0.1",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }
}
