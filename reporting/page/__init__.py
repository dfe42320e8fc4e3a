"""The report as one HTML page: report.html, and the gallery of tickets as tickets.html."""
