--! UNSUPPORTED_SQL 1:17: AVG: write SUM and COUNT and divide after the release
SELECT segment, AVG(revenue_lc) AS x FROM sales_line WHERE period = :period GROUP BY segment
--! UNSUPPORTED_SQL 1:17: a median or quantile needs comparisons on shares
SELECT segment, MEDIAN(revenue_lc) AS x FROM sales_line WHERE period = :period GROUP BY segment
--! UNSUPPORTED_SQL 2:12: MIN and MAX need comparisons on shares
SELECT segment,
       MAX(revenue_lc) AS x FROM sales_line WHERE period = :period GROUP BY segment
--! UNSUPPORTED_SQL 2:29: HAVING needs comparisons on shares
SELECT segment, SUM(revenue_lc) AS x FROM sales_line WHERE period = :period
  GROUP BY segment HAVING   COUNT(*) > 5
--! UNSUPPORTED_SQL 1:103: ORDER BY: rows come in the order
SELECT segment, SUM(revenue_lc) AS x FROM sales_line WHERE period = :period GROUP BY segment ORDER BY x
--! UNSUPPORTED_SQL 1:100: LIMIT: every cell
SELECT segment, SUM(revenue_lc) AS x FROM sales_line WHERE period = :period GROUP BY segment LIMIT 3
--! UNSUPPORTED_SQL 1:17: window functions
SELECT segment, SUM(revenue_lc) OVER (PARTITION BY segment) AS x FROM sales_line WHERE period = :period GROUP BY segment
--! UNSUPPORTED_SQL 1:8: SELECT *: name every column
SELECT * FROM sales_line WHERE period = :period
--! UNSUPPORTED_SQL 1:17: a product of aggregates is a product of shared values
SELECT segment, SUM(revenue_lc) * COUNT(*) AS x FROM sales_line WHERE period = :period GROUP BY segment
--! UNSUPPORTED_SQL 1:17: a quotient is not exact
SELECT segment, SUM(revenue_lc) / COUNT(*) AS x FROM sales_line WHERE period = :period GROUP BY segment
--! UNSUPPORTED_SQL 1:21: a quotient is not exact
SELECT segment, SUM(revenue_lc / 2) AS x FROM sales_line WHERE period = :period GROUP BY segment
--! UNSUPPORTED_SQL 1:43: only entity and fx can be joined
SELECT COUNT(*) AS n FROM sales_line JOIN payments p ON p.x = sales_line.x WHERE period = :period
--! UNSUPPORTED_SQL 1:34: functions and files cannot stand in FROM
SELECT SUM(revenue_lc) AS x FROM read_csv('/etc/passwd') WHERE period = :period
--! UNSUPPORTED_SQL 1:34: functions and files cannot stand in FROM
SELECT SUM(revenue_lc) AS x FROM '/etc/passwd' WHERE period = :period
--! UNSUPPORTED_SQL 1:34: TABLE with DB is not part
SELECT SUM(revenue_lc) AS x FROM main.sales_line WHERE period = :period
--! UNSUPPORTED_SQL 1:34: the federation has no dataset payments
SELECT SUM(revenue_lc) AS x FROM payments WHERE period = :period
--! UNSUPPORTED_SQL 1:12: dataset sales_line has no column salary
SELECT SUM(salary) AS x FROM sales_line WHERE period = :period
--! UNSUPPORTED_SQL 1:78: sub-queries and set operations
SELECT SUM(quantity) AS x FROM sales_line WHERE period = :period AND (SELECT 1) > 0
--! UNSUPPORTED_SQL 1:90: sub-queries and set operations
SELECT SUM(quantity) AS x FROM sales_line WHERE period = :period AND quantity IN (SELECT 1)
--! UNSUPPORTED_SQL 1:8: a report is a SELECT, not UNION
SELECT COUNT(*) AS n FROM sales_line WHERE period = :period UNION SELECT COUNT(*) AS n FROM sales_line
--! UNSUPPORTED_SQL 1:1: a report is one SELECT
SELECT COUNT(*) AS n FROM sales_line WHERE period = :period; DROP TABLE sales_line
--! UNSUPPORTED_SQL 1:8: a report is a SELECT, not ATTACH
ATTACH 'other.db'
--! UNSUPPORTED_SQL 1:6: a report is a SELECT, not COPY
COPY sales_line TO 'x.csv'
--! UNSUPPORTED_SQL 1:9: a report is a SELECT, not
INSTALL httpfs
--! UNSUPPORTED_SQL 1:1: a report is a SELECT, not ALIAS
SELEC segment
--! SQL_INVALID 1:20: Expecting )
SELECT (segment FROM sales_line
--! UNSUPPORTED_SQL 1:8: every aggregate needs a name
SELECT COUNT(*) FROM sales_line WHERE period = :period
--! UNSUPPORTED_SQL 1:8: write COUNT(*) or COUNT(DISTINCT unit)
SELECT COUNT(segment) AS n FROM sales_line WHERE period = :period
--! UNSUPPORTED_SQL 1:8: only the contract's protected unit can be counted distinct: customer_uid
SELECT COUNT(DISTINCT invoice_no) AS n FROM sales_line WHERE period = :period
--! UNSUPPORTED_SQL 1:8: DISTINCT is only allowed as COUNT(DISTINCT unit)
SELECT SUM(DISTINCT quantity) AS n FROM sales_line WHERE period = :period
--! UNSUPPORTED_SQL 1:8: FILTER: write SUM(CASE
SELECT SUM(quantity) FILTER (WHERE quantity > 1) AS n FROM sales_line WHERE period = :period
--! UNSUPPORTED_SQL 1:8: customer_uid is not a public dimension
SELECT customer_uid, COUNT(*) AS n FROM sales_line WHERE period = :period GROUP BY customer_uid
--! UNSUPPORTED_SQL 1:8: GROUP BY must name exactly
SELECT segment, COUNT(*) AS n FROM sales_line WHERE period = :period
--! UNSUPPORTED_SQL 1:93: GROUP BY must name exactly
SELECT segment, product_line, COUNT(*) AS n FROM sales_line WHERE period = :period GROUP BY segment
--! UNSUPPORTED_SQL 1:99: CUBE and GROUPING SETS: use ROLLUP
SELECT segment, product_line, COUNT(*) AS n FROM sales_line WHERE period = :period GROUP BY CUBE (segment, product_line)
--! UNSUPPORTED_SQL 1:8: GROUP with ALL is not part
SELECT segment, COUNT(*) AS n FROM sales_line WHERE period = :period GROUP BY ALL
--! UNSUPPORTED_SQL 1:8: WHERE must say period = :period
SELECT COUNT(*) AS n FROM sales_line
--! UNSUPPORTED_SQL 1:45: WHERE must say period = :period
SELECT COUNT(*) AS n FROM sales_line WHERE (quantity > 1 OR period = :period)
--! UNSUPPORTED_SQL 1:44: period is compared with :period
SELECT COUNT(*) AS n FROM sales_line WHERE period = '2026-01'
--! UNSUPPORTED_SQL 1:65: period is restricted twice
SELECT COUNT(*) AS n FROM sales_line WHERE period = :period AND period = :period
--! UNSUPPORTED_SQL 1:44: the simple form has one period
SELECT COUNT(*) AS n FROM sales_line WHERE period IN (:period, :prior_year)
--! UNSUPPORTED_SQL 1:65: only the parameters
SELECT COUNT(*) AS n FROM sales_line WHERE period = :period AND quantity > :limit
--! LITERAL_ON_PRIVATE 1:65: a constant is compared with a private column
SELECT COUNT(*) AS n FROM sales_line WHERE period = :period AND customer_uid = 'Customer#000000001'
--! LITERAL_ON_PRIVATE 1:75: a constant is compared with a private column
SELECT SUM(quantity) AS n FROM sales_line WHERE period = :period AND NOT (1 > invoice_no OR quantity > 5)
--! UNSUPPORTED_SQL 1:65: a constant is not in the domain of segment
SELECT COUNT(*) AS n FROM sales_line WHERE period = :period AND segment = 'BUILDNG'
--! UNSUPPORTED_SQL 1:65: the function LOWER is not part
SELECT COUNT(*) AS n FROM sales_line WHERE period = :period AND LOWER(segment) = 'x'
--! UNSUPPORTED_SQL 1:65: the function getvariable is not part
SELECT COUNT(*) AS n FROM sales_line WHERE period = :period AND getvariable('x') = 1
--! UNSUPPORTED_SQL 1:65: LIKE is not part
SELECT COUNT(*) AS n FROM sales_line WHERE period = :period AND segment LIKE 'B%'
--! UNSUPPORTED_SQL 1:17: a cast: the contract fixes every type
SELECT SUM(CAST(quantity AS DOUBLE)) AS n FROM sales_line WHERE period = :period
--! UNSUPPORTED_SQL 1:22: CASE without ELSE would give NULL
SELECT SUM(CASE WHEN quantity > 1 THEN 1 END) AS n FROM sales_line WHERE period = :period
--! UNSUPPORTED_SQL 1:17: write CASE WHEN condition
SELECT SUM(CASE quantity WHEN 1 THEN 1 ELSE 0 END) AS n FROM sales_line WHERE period = :period
--! UNSUPPORTED_SQL 1:23: numbers are written like
SELECT SUM(quantity * 1e3) AS n FROM sales_line WHERE period = :period
--! TYPE_MISMATCH 1:12: '+' takes numbers
SELECT SUM(quantity + segment) AS n FROM sales_line WHERE period = :period
--! SUM_OF_PRIVATE 1:8: SUM takes measures
SELECT SUM(invoice_no) AS n FROM sales_line WHERE period = :period
--! OVERFLOW_POSSIBLE 1:8: the sum of one data owner could leave 64 bits
SELECT SUM(revenue_lc * 1000) AS n FROM sales_line WHERE period = :period
--! SCALE_TOO_LARGE 1:12: a product has too many digits
SELECT SUM(revenue_lc * 0.00000000001) AS n FROM sales_line WHERE period = :period
--! UNSUPPORTED_SQL 1:8: two selected columns have one name
SELECT COUNT(*) AS n, SUM(quantity) AS n FROM sales_line WHERE period = :period
--! UNSUPPORTED_SQL 1:20: names are a-z
SELECT COUNT(*) AS "N" FROM sales_line WHERE period = :period
--! UNSUPPORTED_SQL 4:12: a plain SUM under ROLLUP would count a unit once per cell
WITH t AS (SELECT entity, period, segment, COUNT(DISTINCT customer_uid) AS customers
  FROM sales_line WHERE period = :period GROUP BY entity, period, segment)
SELECT t.segment,
       SUM(t.customers) AS customers
FROM t GROUP BY ROLLUP (t.segment)
--! UNSUPPORTED_SQL 3:23: each_level stands around distinct counts only
WITH t AS (SELECT entity, period, segment, COUNT(*) AS n
  FROM sales_line WHERE period = :period GROUP BY entity, period, segment)
SELECT t.segment, SUM(each_level(t.n)) AS n
FROM t GROUP BY ROLLUP (t.segment)
--! UNSUPPORTED_SQL 3:23: gc translates amounts, not counts
WITH t AS (SELECT entity, period, segment, COUNT(*) AS n
  FROM sales_line WHERE period = :period GROUP BY entity, period, segment)
SELECT t.segment, SUM(gc(t.n, f.avg_rate)) AS n
FROM t JOIN entity e ON e.entity = t.entity JOIN fx f ON f.currency = e.currency AND f.period = t.period GROUP BY t.segment
--! UNSUPPORTED_SQL 3:23: only gc(amount, rate) multiplies sub-totals
WITH t AS (SELECT entity, period, segment, SUM(revenue_lc) AS n
  FROM sales_line WHERE period = :period GROUP BY entity, period, segment)
SELECT t.segment, SUM(t.n * f.avg_rate) AS n
FROM t JOIN entity e ON e.entity = t.entity JOIN fx f ON f.currency = e.currency AND f.period = t.period GROUP BY t.segment
--! UNSUPPORTED_SQL 4:13: join fx after entity
WITH t AS (SELECT entity, period, segment, SUM(revenue_lc) AS n
  FROM sales_line WHERE period = :period GROUP BY entity, period, segment)
SELECT t.segment, SUM(gc(t.n, f.avg_rate)) AS n
FROM t JOIN fx f ON f.currency = t.segment AND f.period = t.period GROUP BY t.segment
--! UNSUPPORTED_SQL 4:18: JOIN with SIDE is not part
WITH t AS (SELECT entity, period, segment, SUM(revenue_lc) AS n
  FROM sales_line WHERE period = :period GROUP BY entity, period, segment)
SELECT t.segment, SUM(t.n) AS n
FROM t LEFT JOIN entity e ON e.entity = t.entity GROUP BY t.segment
--! UNSUPPORTED_SQL 4:13: only entity and fx can be joined
WITH t AS (SELECT entity, period, segment, SUM(revenue_lc) AS n
  FROM sales_line WHERE period = :period GROUP BY entity, period, segment)
SELECT t.segment, SUM(t.n) AS n
FROM t JOIN sales_line s ON s.segment = t.segment GROUP BY t.segment
--! UNSUPPORTED_SQL 1:19: the subtotal must be selected and grouped by entity and period
WITH t AS (SELECT segment, SUM(revenue_lc) AS n
  FROM sales_line WHERE period = :period GROUP BY segment)
SELECT t.segment, SUM(t.n) AS n FROM t GROUP BY t.segment
--! UNSUPPORTED_SQL 3:23: with two periods write SUM(CASE
WITH t AS (SELECT entity, period, segment, SUM(revenue_lc) AS n
  FROM sales_line WHERE period IN (:period, :prior_year) GROUP BY entity, period, segment)
SELECT t.segment, SUM(t.n) AS n FROM t GROUP BY t.segment
--! UNSUPPORTED_SQL 3:8: a period of the WITH clause is not used
WITH t AS (SELECT entity, period, segment, SUM(revenue_lc) AS n
  FROM sales_line WHERE period IN (:period, :prior_year) GROUP BY entity, period, segment)
SELECT t.segment, SUM(CASE WHEN t.period = :period THEN t.n ELSE 0 END) AS n FROM t GROUP BY t.segment
--! UNSUPPORTED_SQL 1:66: the sub-total unused is not used
WITH t AS (SELECT entity, period, segment, SUM(revenue_lc) AS n, COUNT(*) AS unused
  FROM sales_line WHERE period = :period GROUP BY entity, period, segment)
SELECT t.segment, SUM(t.n) AS n FROM t GROUP BY t.segment
--! UNSUPPORTED_SQL 3:8: the grouping column segment is not selected
WITH t AS (SELECT entity, period, segment, SUM(revenue_lc) AS n
  FROM sales_line WHERE period = :period GROUP BY entity, period, segment)
SELECT SUM(t.n) AS n FROM t GROUP BY t.segment
--! UNSUPPORTED_SQL 3:49: the outer GROUP BY must name
WITH t AS (SELECT entity, period, segment, product_line, SUM(revenue_lc) AS n
  FROM sales_line WHERE period = :period GROUP BY entity, period, segment, product_line)
SELECT t.segment, SUM(t.n) AS n FROM t GROUP BY t.segment
--! UNSUPPORTED_SQL 3:48: entity is not a dimension of the sub-total
WITH t AS (SELECT entity, period, SUM(revenue_lc) AS n
  FROM sales_line WHERE period = :period GROUP BY entity, period)
SELECT t.entity, SUM(t.n) AS n FROM t GROUP BY t.entity
