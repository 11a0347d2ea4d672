"""reports/index.html: the frame, the order of the questions, facts and provenance; and docs/strategies.md."""
