SELECT channel, SUM(amount) AS amount, COUNT(*) AS orders, COUNT(DISTINCT customer) AS customers
FROM orders
WHERE period = :period
GROUP BY ROLLUP (channel)
