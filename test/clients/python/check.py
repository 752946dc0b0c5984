"""A tour of the Python client against a node: `check.py HOST PORT [TLS_NAME CA CERTIFICATE KEY]`, all of it over TLS with the latter."""
import sys
import tempfile
import time
from pathlib import Path

import aerospike
from aerospike import exception as ex
from aerospike import predicates
from aerospike_helpers import expressions as exp
from aerospike_helpers.batch import records as br
from aerospike_helpers.operations import bitwise_operations, expression_operations, hll_operations, list_operations, map_operations, operations

NS, SET = 'test', 'tour'
MODULE = """
function add(rec, bin, step)
  if not aerospike:exists(rec) then aerospike:create(rec) end
  rec[bin] = (rec[bin] or 0) + step
  aerospike:update(rec)
  return rec[bin]
end
"""


def key(name):
    return (NS, SET, name)


def wait(client, job):
    while client.job_info(job, aerospike.JOB_QUERY)['status'] == aerospike.JOB_STATUS_INPROGRESS:
        time.sleep(0.05)


def records(client):
    values = {
        'int': -(2 ** 63), 'float': 1.5, 'str': 'ä', 'blob': b'\x00\xff', 'bool': True,
        'list': [1, 'a', [2.5, None]], 'map': {'b': 1, 'a': {'c': [b'x']}}, 'geo': aerospike.GeoJSON({'type': 'Point', 'coordinates': [8.5, 47.4]}),
    }
    client.put(key('all'), values, meta={'ttl': 1000}, policy={'key': aerospike.POLICY_KEY_SEND})
    (_, meta, bins) = client.get(key('all'))
    assert bins.pop('geo').unwrap() == values.pop('geo').unwrap() and bins == values, bins
    assert meta['gen'] == 1 and 990 <= meta['ttl'] <= 1000, meta
    try:
        client.put(key('all'), {'int': 1}, policy={'exists': aerospike.POLICY_EXISTS_CREATE})
        raise AssertionError('a create of what exists')
    except ex.RecordExistsError:
        pass
    large = 'compressible ' * 10_000
    client.put(key('large'), {'text': large}, policy={'compress': True})
    assert client.get(key('large'), policy={'compress': True})[2]['text'] == large
    client.remove(key('large'), policy={'durable_delete': True})
    assert client.exists(key('large'))[1] is None


def operate(client):
    _, _, bins = client.operate(key('ops'), [
        operations.increment('n', 2), operations.append('s', 'ab'), operations.prepend('s', '>'), operations.read('n'), operations.read('s'),
        list_operations.list_append_items('l', [3, 1, 2]), list_operations.list_sort('l'),
        map_operations.map_put_items('m', {'x': 1, 'y': 2}, {'map_order': aerospike.MAP_KEY_ORDERED}),
    ])
    assert (bins['n'], bins['s']) == (2, '>ab'), bins
    read = client.operate_ordered(key('ops'), [
        list_operations.list_get_by_rank_range('l', -2, aerospike.LIST_RETURN_VALUE, 2),
        map_operations.map_get_by_value_range('m', 2, 9, aerospike.MAP_RETURN_KEY),
        expression_operations.expression_read('sum', exp.Add(exp.IntBin('n'), 40).compile()),
    ])[2]
    assert read == [('l', [2, 3]), ('m', ['y']), ('sum', 42)], read
    client.put(key('bits'), {'b': bytearray(4)})
    bits = client.operate(key('bits'), [bitwise_operations.bit_set('b', 4, 8, 1, bytearray(b'\xff')), bitwise_operations.bit_count('b', 0, 32)])[2]
    assert bits['b'] == 8, bits
    client.operate(key('hll'), [hll_operations.hll_add('h', [f'v{i}' for i in range(1000)], 12)])
    count = client.operate(key('hll'), [hll_operations.hll_get_count('h')])[2]['h']
    assert 900 < count < 1100, count


def many(client):
    keys = [key(i) for i in range(100)]
    for i, each in enumerate(keys):
        client.put(each, {'n': i, 'name': f'n{i % 10}', 'tags': [i % 3, 'all'], 'at': aerospike.GeoJSON({'type': 'Point', 'coordinates': [i / 10, 1.0]})})
    found = client.batch_read(keys + [key('none')]).batch_records
    assert [record.result for record in found] == [0] * 100 + [2]
    written = client.batch_write(br.BatchRecords([br.Write(keys[0], [operations.write('w', 1)]), br.Remove(key('ops')), br.Read(keys[1], ops=[operations.read('n')])]))
    assert [record.result for record in written.batch_records] == [0, 0, 0] and written.batch_records[2].record[2] == {'n': 1}
    small = exp.And(exp.LT(exp.IntBin('n'), 10), exp.BinExists('name')).compile()
    scan = client.query(NS, SET)
    scan.select('n')
    assert sorted(bins['n'] for _, _, bins in scan.results(policy={'expressions': small})) == list(range(10))


def by_index(client):
    indexes = [('n', aerospike.INDEX_TYPE_DEFAULT, aerospike.INDEX_NUMERIC), ('name', aerospike.INDEX_TYPE_DEFAULT, aerospike.INDEX_STRING),
               ('tags', aerospike.INDEX_TYPE_LIST, aerospike.INDEX_NUMERIC), ('at', aerospike.INDEX_TYPE_DEFAULT, aerospike.INDEX_GEO2DSPHERE)]
    for name, kind, data in indexes:
        client.index_single_value_create(NS, SET, name, data, f'tour_{name}') if kind == aerospike.INDEX_TYPE_DEFAULT else client.index_list_create(NS, SET, name, data, f'tour_{name}')
    try:
        region = '{"type":"AeroCircle","coordinates":[[5.0,1.0],30000]}'
        for where, expected in ((predicates.between('n', 20, 29), 10), (predicates.equals('name', 'n3'), 10), (predicates.contains('tags', aerospike.INDEX_TYPE_LIST, 1), 33),
                                (predicates.geo_within_geojson_region('at', region), 5)):
            while True:
                query = client.query(NS, SET)
                query.where(where)
                try:
                    count = len(query.results())
                    break
                except ex.IndexNotReadable:
                    time.sleep(0.05)
            assert count == expected, (where, count)
        changing = client.query(NS, SET)
        changing.where(predicates.between('n', 0, 4))
        changing.add_ops([operations.write('changed', 1)])
        wait(client, changing.execute_background())
        count = client.query(NS, SET).results(policy={'expressions': exp.BinExists('changed').compile()})
        assert len(count) == 5, count
    finally:
        for name, _, _ in indexes:
            client.index_remove(NS, f'tour_{name}')


def lua(client):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / 'tour.lua'
        path.write_text(MODULE)
        client.udf_put(str(path))
    assert [client.apply(key('lua'), 'tour', 'add', ['n', step]) for step in (1, 2)] == [1, 3]
    visit = client.query(NS, SET)
    visit.apply('tour', 'add', ['visits', 1])
    wait(client, visit.execute_background())
    assert client.get(key(7))[2]['visits'] == 1
    client.udf_remove('tour.lua')


def main():
    host, port, *tls = sys.argv[1:]
    config = {'hosts': [(host, int(port), *tls[:1])], 'lua': {'user_path': tempfile.gettempdir()}}
    if tls:
        config['tls'] = {'enable': True, 'cafile': tls[1], 'certfile': tls[2], 'keyfile': tls[3]}
    client = aerospike.client(config).connect()
    client.truncate(NS, SET, 0)
    for part in (records, operate, many, by_index, lua):
        part(client)
        print(f'ok {part.__name__}')
    assert all(error is None for error, _ in client.info_all('statistics').values())
    client.truncate(NS, SET, 0)
    assert client.query(NS, SET).results() == []
    client.close()
    print('ok truncate, info')


main()
