"""The version: a constant, because asking the package metadata for it costs the agent two megabytes."""

VERSION = "0.1.0"
