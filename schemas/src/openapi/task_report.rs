//! The schema of the report on one task.
//!
//! The report is computed and typed by the model, which stands above this crate, so its schema is written
//! out here, without references. metad's tests hold a live report against it and refuse fields that it does
//! not name.

use serde_json::{Map, Value, json};

use crate::config::MEMORY_MB_MAX;
use crate::prediction::Basis;

/// A field and its schema.
type Field = (&'static str, Value);

/// The schema.
pub(super) fn schema() -> Value {
    object(
        "What is known of one task: configs, histograms, fits, and the time against memory",
        vec![
            ("task", json!({"type": "string", "description": "The task"})),
            ("samples", count("Executions measured")),
            ("configs", list("The configs it was measured on, in order of their memory", config())),
            ("tuning", list("Median time against memory at the median input size", tuning_point())),
            ("curves", list("Predicted time against input size, per config, at most 8", size_curve())),
        ],
        vec![("input", input()), ("shape", shape()), ("coverage", coverage())],
    )
}

fn config() -> Value {
    object(
        "One config",
        vec![
            ("config", key()),
            ("samples", count("Executions measured on it")),
            ("mean_ms", amount("Mean time in ms")),
            ("quantiles", quantiles()),
            ("min_ms", amount("Shortest time in ms")),
            ("max_ms", amount("Longest time in ms")),
            ("histogram", list("All times; bars without executions are left out", bucket())),
        ],
        vec![("size_fit", size_fit()), ("peak_memory", peak_memory())],
    )
}

fn key() -> Value {
    let vcpu = json!({"type": "number", "exclusiveMinimum": 0, "description": "vCPUs, where decoupled"});
    object("The config", vec![("memory_mb", memory())], vec![("vcpu", vcpu)])
}

fn quantiles() -> Value {
    let quantiles = vec![
        ("median", amount("The median")),
        ("p90", amount("90th percentile")),
        ("p95", amount("95th percentile")),
        ("p99", amount("99th percentile")),
    ];
    object("Quantiles of all times in ms, whatever the input size, at most 1 % off", quantiles, vec![])
}

fn bucket() -> Value {
    let bounds_and_count = vec![
        ("from_ms", amount("From this time in ms")),
        ("to_ms", amount("To this time in ms")),
        ("count", count("Executions within")),
    ];
    object("One bar", bounds_and_count, vec![])
}

fn peak_memory() -> Value {
    let peak = vec![
        ("samples", count("Executions whose peak is known")),
        ("p95_mb", amount("Memory in MB that 95 of 100 executions stay within, at most 1 % off")),
        ("max_mb", amount("The largest one in MB")),
    ];
    or_null(object("Peak memory, whatever the input size; null where no record had it", peak, vec![]))
}

fn size_fit() -> Value {
    let line = vec![
        ("intercept_ms", number("Time at size 0 in ms")),
        ("ms_per_byte", number("Rise per byte in ms")),
        ("correlation", number("Pearson's correlation")),
    ];
    or_null(object("Straight line of time against input size; null where one does not vary", line, vec![]))
}

fn input() -> Value {
    let sizes = vec![
        ("min_bytes", count("Smallest")),
        ("median_bytes", count("Median of the recent ones")),
        ("max_bytes", count("Largest")),
    ];
    or_null(object("Sizes of its inputs in bytes; null where none is known", sizes, vec![]))
}

fn shape() -> Value {
    let parameters = vec![
        ("serial", amount("Part that does not get faster with more CPU, 0 to 1")),
        ("cap", amount("vCPUs beyond which nothing gets faster; 1,000,000 where no cap was found")),
        (
            "power",
            amount("Power of the share: more than 1 where a small share slows down by more than its part"),
        ),
    ];
    let formula = "time = serial + (1 - serial) / min(share, cap)^power";
    let description = format!("How its time follows the CPU share, {formula}; null where not fitted");
    or_null(object(&description, parameters, vec![]))
}

fn tuning_point() -> Value {
    object("One point", vec![("memory_mb", memory()), ("median_ms", amount("Median time in ms"))], vec![])
}

fn size_curve() -> Value {
    let point = vec![
        ("input_bytes", count("Size of all inputs in bytes")),
        ("p5_ms", amount("5th percentile in ms")),
        ("median_ms", amount("Median in ms")),
        ("p95_ms", amount("95th percentile in ms")),
    ];
    let points = list("Points to draw, by rising size", object("One point", point, vec![]));
    let bases = [Basis::Exact, Basis::MemoryNormalised];
    let basis = json!({"enum": bases, "description": "Samples of this config, or those of all configs"});
    let formula =
        "Size models with their weights: the median is their product, each to the power of its weight";
    let fields = vec![
        ("config", key()),
        ("basis", basis),
        ("formula", list(formula, curve_part())),
        ("points", points),
    ];
    object("The fitted curve of one config", fields, vec![])
}

fn curve_part() -> Value {
    let kinds = ["constant", "line", "power_law", "ratio", "neighbours", "smooth"];
    let kind =
        json!({"type": "string", "enum": kinds, "description": "Which model; the others' fields are absent"});
    let parameters = vec![
        ("time_ms", amount("constant: the time in ms")),
        ("intercept_ms", number("line: time at size 0 in ms")),
        ("ms_per_byte", number("line: rise per byte in ms; ratio: time per byte in ms, one byte added")),
        ("scale_ms", amount("power law: time at size 0 in ms")),
        ("exponent", number("power law: power of the size in bytes, one byte added")),
        ("sizes", count("neighbours, smooth: sizes observed, alike ones joined")),
    ];
    object("One size model", vec![("kind", kind), ("weight", amount("Weight, 0 to 1"))], parameters)
}

fn coverage() -> Value {
    let day = json!({"type": "string", "format": "date", "description": "The day, in UTC"});
    let days = object("One day", [vec![("day", day)], score()].concat(), vec![]);
    let days = list("The newest days on which something was scored, at most 30, oldest first", days);
    or_null(object(
        "How well plans predicted it; null where nothing was scored",
        [score(), vec![("days", days)]].concat(),
        vec![],
    ))
}

fn score() -> Vec<Field> {
    let percent = |description| {
        let mut percent = amount(description);
        percent["type"] = json!(["number", "null"]);
        percent
    };
    let ratio = json!({
        "type": "object", "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1},
        "description": "Share of the executions that took no longer than each forecast quantile",
    });
    vec![
        ("n", count("Executions whose forecast was scored")),
        (
            "mdape_percent",
            percent("Median absolute error of the forecast median, at most 10 % of itself off"),
        ),
        ("mape_percent", percent("Mean of those errors")),
        ("ratio", ratio),
    ]
}

fn object(description: &str, required: Vec<Field>, optional: Vec<Field>) -> Value {
    let names: Vec<&str> = required.iter().map(|(name, _)| *name).collect();
    let fields = required.into_iter().chain(optional).map(|(name, schema)| (name.to_owned(), schema));
    let properties: Map<String, Value> = fields.collect();
    json!({"type": "object", "description": description, "required": names, "properties": properties})
}

fn or_null(mut object: Value) -> Value {
    object["type"] = json!(["object", "null"]);
    object
}

fn list(description: &str, items: Value) -> Value {
    json!({"type": "array", "description": description, "items": items})
}

fn count(description: &str) -> Value {
    json!({"type": "integer", "minimum": 0, "description": description})
}

fn number(description: &str) -> Value {
    json!({"type": "number", "description": description})
}

fn amount(description: &str) -> Value {
    json!({"type": "number", "minimum": 0, "description": description})
}

fn memory() -> Value {
    json!({"type": "integer", "minimum": 1, "maximum": MEMORY_MB_MAX, "description": "Memory in MB"})
}
