SELECT COUNT(*) AS lines FROM sales_line WHERE period = :period
