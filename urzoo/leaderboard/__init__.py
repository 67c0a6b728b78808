"""The leaderboard: result files and published figures in; Markdown, CSV, JSON, plots and a page out."""
