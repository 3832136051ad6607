-- Every object of the schemas `risk` and `risk_private`, with one fingerprint of all that matters
-- in it: source, columns, constraints, owner, grants, comment. It runs with an empty search_path,
-- so that every name it prints is qualified.
with schemas as (
  select s.oid, s.nspname, s.nspowner, s.nspacl
  from pg_namespace as s
  where s.nspname in ('risk', 'risk_private')
),
-- Alembic's and this query's own tables are about the schema, not of it.
bookkeeping as (
  select c.oid
  from pg_class as c
  where c.oid in (to_regclass('risk_private.alembic_version'),
                  to_regclass('risk_private.recorded_objects'))
),
relations as (
  select c.*, c.oid::regclass::text as name,
    case c.relkind
      when 'r' then 'table' when 'p' then 'table' when 'v' then 'view' when 'S' then 'sequence'
      when 'm' then 'materialized view' when 'c' then 'type' else 'index'
    end as kind
  from pg_class as c
  join schemas as s on s.oid = c.relnamespace
  left join pg_index as i on i.indexrelid = c.oid
  where coalesce(i.indrelid, c.oid) not in (select b.oid from bookkeeping as b)
),
objects (object, content) as (
  select 'schema ' || s.oid::regnamespace, jsonb_build_array(
    s.nspowner::regrole,
    (select array_agg(g order by g) from unnest(s.nspacl::text[]) as g),
    obj_description(s.oid, 'pg_namespace'))
  from schemas as s

  union all
  select r.kind || ' ' || r.name, jsonb_build_array(
    r.relkind, r.relowner::regrole, r.reloptions, r.relpersistence, r.relrowsecurity,
    r.relforcerowsecurity,
    (select array_agg(g order by g) from unnest(r.relacl::text[]) as g),
    case when r.relkind in ('v', 'm') then pg_get_viewdef(r.oid) end,
    case when r.relkind in ('i', 'I') then pg_get_indexdef(r.oid) end,
    q.seqtypid::regtype, q.seqstart, q.seqincrement, q.seqmin, q.seqmax, q.seqcycle,
    obj_description(r.oid, 'pg_class'))
  from relations as r
  left join pg_sequence as q on q.seqrelid = r.oid

  union all
  select format('column %s.%I', r.name, a.attname), jsonb_build_array(
    a.attnum, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated,
    a.attcollation::regcollation, pg_get_expr(d.adbin, d.adrelid),
    (select array_agg(g order by g) from unnest(a.attacl::text[]) as g),
    col_description(r.oid, a.attnum))
  from relations as r
  join pg_attribute as a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
  left join pg_attrdef as d on d.adrelid = r.oid and d.adnum = a.attnum
  where r.relkind in ('r', 'p', 'v', 'm', 'c')

  union all
  select format('constraint %I on %s', k.conname, coalesce(r.name, k.contypid::regtype::text)),
    jsonb_build_array(
      pg_get_constraintdef(k.oid), k.convalidated, obj_description(k.oid, 'pg_constraint'))
  from pg_constraint as k
  join schemas as s on s.oid = k.connamespace
  left join relations as r on r.oid = k.conrelid
  where k.contype <> 'n' and k.conrelid not in (select b.oid from bookkeeping as b)

  union all
  select format('trigger %I on %s', t.tgname, r.name), jsonb_build_array(
    pg_get_triggerdef(t.oid), t.tgenabled, obj_description(t.oid, 'pg_trigger'))
  from relations as r
  join pg_trigger as t on t.tgrelid = r.oid and not t.tgisinternal

  union all
  select format('policy %I on %s', p.polname, r.name), jsonb_build_array(
    p.polcmd, p.polpermissive, p.polroles::regrole[], pg_get_expr(p.polqual, p.polrelid),
    pg_get_expr(p.polwithcheck, p.polrelid))
  from relations as r
  join pg_policy as p on p.polrelid = r.oid

  union all
  select format('rule %I on %s', u.rulename, r.name), jsonb_build_array(
    pg_get_ruledef(u.oid), u.ev_enabled)
  from relations as r
  join pg_rewrite as u on u.ev_class = r.oid and u.rulename <> '_RETURN'

  union all
  select
    case f.prokind when 'p' then 'procedure ' else 'function ' end || f.oid::regprocedure,
    jsonb_build_array(
      f.prokind, f.proowner::regrole, l.lanname, f.provolatile, f.prosecdef, f.proisstrict,
      f.proparallel, f.proleakproof, f.procost, f.prorows, f.proconfig, f.prosrc,
      (select array_agg(g order by g) from unnest(f.proacl::text[]) as g),
      pg_get_function_arguments(f.oid), pg_get_function_result(f.oid),
      pg_get_function_sqlbody(f.oid), obj_description(f.oid, 'pg_proc'))
  from pg_proc as f
  join schemas as s on s.oid = f.pronamespace
  join pg_language as l on l.oid = f.prolang

  union all
  select 'type ' || t.oid::regtype, jsonb_build_array(
    t.typtype, t.typowner::regrole, format_type(t.typbasetype, t.typtypmod), t.typnotnull,
    t.typdefault,
    (select array_agg(g order by g) from unnest(t.typacl::text[]) as g),
    (select array_agg(e.enumlabel order by e.enumsortorder)
     from pg_enum as e where e.enumtypid = t.oid),
    obj_description(t.oid, 'pg_type'))
  from pg_type as t
  join schemas as s on s.oid = t.typnamespace
  where t.typtype in ('e', 'd', 'r')
)
select object, md5(content::text) as fingerprint
from objects
