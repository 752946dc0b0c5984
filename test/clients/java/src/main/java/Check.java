import com.aerospike.client.*;
import com.aerospike.client.Record;
import com.aerospike.client.async.*;
import com.aerospike.client.cdt.*;
import com.aerospike.client.exp.*;
import com.aerospike.client.listener.RecordListener;
import com.aerospike.client.operation.*;
import com.aerospike.client.policy.*;
import com.aerospike.client.query.*;
import com.aerospike.client.task.IndexTask;
import java.util.*;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/** A tour of the Java client against a node: {@code Check HOST PORT [TLS_NAME]}, over TLS with the latter (certificates as in javax.net.ssl.*). */
public final class Check {
	private static final String NS = "test", SET = "tour";
	private static final String MODULE = """
		function add(rec, bin, step)
		  if not aerospike:exists(rec) then aerospike:create(rec) end
		  rec[bin] = (rec[bin] or 0) + step
		  aerospike:update(rec)
		  return rec[bin]
		end
		""";

	private static AerospikeClient client;

	public static void main(String[] args) throws Exception {
		ClientPolicy policy = new ClientPolicy();
		if (args.length > 2) policy.tlsPolicy = new TlsPolicy();
		// Event loops of the client's own know no TLS.
		EventLoops loops = args.length > 2 ? null : new NioEventLoops(1);
		policy.eventLoops = loops;
		Host host = args.length > 2 ? new Host(args[0], args[2], Integer.parseInt(args[1])) : new Host(args[0], Integer.parseInt(args[1]));
		try {
			client = new AerospikeClient(policy, host);
			client.truncate(null, NS, SET, null);
			records();
			operate();
			many();
			byIndex();
			lua();
			if (loops != null) async(loops.next());
			same(true, Info.request(client.getNodes()[0], "statistics").contains("uptime="));
			client.truncate(null, NS, SET, null);
			same(0, count(new QueryPolicy(), new Statement()));
			System.out.println("ok");
		} finally {
			if (client != null) client.close();
			if (loops != null) loops.close();
		}
	}

	private static void records() {
		Map<String, Object> map = new HashMap<>(Map.of("b", 1L, "a", List.of("x")));
		Object[] values = {Long.MIN_VALUE, 1.5, "ä", new byte[] {0, -1}, true, Arrays.asList(1L, "a", null), map, new Value.GeoJSONValue("{\"type\":\"Point\",\"coordinates\":[8.5,47.4]}")};
		Bin[] bins = new Bin[values.length];
		for (int i = 0; i < values.length; i++) bins[i] = new Bin("b" + i, Value.get(values[i]));
		WritePolicy lasting = new WritePolicy();
		lasting.expiration = 1000;
		lasting.sendKey = true;
		client.put(lasting, key("all"), bins);
		Record record = client.get(null, key("all"));
		for (int i = 0; i < values.length - 1; i++) if (i != 3) same(values[i], record.getValue("b" + i));
		same(true, Arrays.equals((byte[])values[3], (byte[])record.getValue("b3")));
		same(values[7].toString(), record.getGeoJSONString("b7"));
		same(1, record.generation);
		WritePolicy create = new WritePolicy();
		create.recordExistsAction = RecordExistsAction.CREATE_ONLY;
		fails(ResultCode.KEY_EXISTS_ERROR, () -> client.put(create, key("all"), new Bin("b0", 1)));
		WritePolicy compressed = new WritePolicy();
		compressed.compress = true;
		compressed.durableDelete = true;
		String large = "compressible ".repeat(10_000);
		client.put(compressed, key("large"), new Bin("text", large));
		same(large, client.get(compressed, key("large")).getString("text"));
		same(true, client.delete(compressed, key("large")));
		same(false, client.exists(null, key("large")));
	}

	private static void operate() {
		client.operate(null, key("ops"), Operation.add(new Bin("n", 2)), Operation.append(new Bin("s", "b")), Operation.prepend(new Bin("s", "a")),
			ListOperation.appendItems("l", List.of(Value.get(3), Value.get(1), Value.get(2))), ListOperation.sort("l", 0),
			MapOperation.putItems(new MapPolicy(MapOrder.KEY_ORDERED, 0), "m", Map.of(Value.get("x"), Value.get(1), Value.get("y"), Value.get(2))));
		same("ab", client.get(null, key("ops")).getString("s"));
		Record record = client.operate(null, key("ops"), ListOperation.getByRankRange("l", -2, 2, ListReturnType.VALUE), MapOperation.getByValueRange("m", Value.get(2), null, MapReturnType.KEY),
			ExpOperation.read("sum", Exp.build(Exp.add(Exp.intBin("n"), Exp.val(40))), ExpReadFlags.DEFAULT));
		same(List.of(2L, 3L), record.getList("l"));
		same(List.of("y"), record.getList("m"));
		same(42L, record.getLong("sum"));
		client.put(null, key("bits"), new Bin("b", new byte[4]));
		same(8L, client.operate(null, key("bits"), BitOperation.set(BitPolicy.Default, "b", 4, 8, new byte[] {-1}), BitOperation.count("b", 0, 32)).getList("b").get(1));
		List<Value> seen = new ArrayList<>();
		for (int i = 0; i < 1000; i++) seen.add(Value.get("v" + i));
		Object estimate = client.operate(null, key("hll"), HLLOperation.add(HLLPolicy.Default, "h", seen, 12), HLLOperation.getCount("h")).getList("h").get(1);
		same(true, Math.abs((Long)estimate - 1000) < 100);
	}

	private static void many() {
		Key[] keys = new Key[100];
		for (int i = 0; i < keys.length; i++) {
			keys[i] = key(i);
			client.put(null, keys[i], new Bin("n", i), new Bin("name", "n" + i % 10), new Bin("tags", List.of(i % 3)),
				Bin.asGeoJSON("at", "{\"type\":\"Point\",\"coordinates\":[" + i / 10.0 + ",1.0]}"));
		}
		same(100L, Arrays.stream(client.get(null, keys)).filter(Objects::nonNull).count());
		BatchPolicy few = new BatchPolicy();
		few.filterExp = Exp.build(Exp.lt(Exp.intBin("n"), Exp.val(10)));
		same(10L, Arrays.stream(client.get(few, keys)).filter(Objects::nonNull).count());
		same(true, client.operate(null, List.of(new BatchWrite(keys[0], new Operation[] {Operation.put(new Bin("w", 1))}), new BatchDelete(key("ops")), new BatchRead(keys[1], true))));
		QueryPolicy small = new QueryPolicy();
		small.filterExp = Exp.build(Exp.and(Exp.lt(Exp.intBin("n"), Exp.val(10)), Exp.binExists("name")));
		same(10, count(small, new Statement()));
	}

	private static void byIndex() {
		Map<String, IndexTask> indexes = new LinkedHashMap<>();
		indexes.put("tour_n", client.createIndex(null, NS, SET, "tour_n", "n", IndexType.NUMERIC));
		indexes.put("tour_name", client.createIndex(null, NS, SET, "tour_name", "name", IndexType.STRING));
		indexes.put("tour_tags", client.createIndex(null, NS, SET, "tour_tags", "tags", IndexType.NUMERIC, IndexCollectionType.LIST));
		indexes.put("tour_at", client.createIndex(null, NS, SET, "tour_at", "at", IndexType.GEO2DSPHERE));
		try {
			indexes.values().forEach(IndexTask::waitTillComplete);
			Map<Filter, Integer> expected = Map.of(Filter.range("n", 20, 29), 10, Filter.equal("name", "n3"), 10, Filter.contains("tags", IndexCollectionType.LIST, 1), 33,
				Filter.geoWithinRadius("at", 5.0, 1.0, 30_000), 5);
			expected.forEach((filter, records) -> same(records, count(new QueryPolicy(), by(filter))));
			client.execute(null, by(Filter.range("n", 0, 4)), Operation.put(new Bin("changed", 1))).waitTillComplete(50);
			QueryPolicy changed = new QueryPolicy();
			changed.filterExp = Exp.build(Exp.binExists("changed"));
			same(5, count(changed, new Statement()));
		} finally {
			indexes.keySet().forEach(name -> client.dropIndex(null, NS, SET, name).waitTillComplete());
		}
	}

	private static void lua() {
		client.registerUdfString(null, MODULE, "tour.lua", Language.LUA).waitTillComplete();
		for (long sum : new long[] {1, 2}) same(sum, client.execute(null, key("lua"), "tour", "add", Value.get("n"), Value.get(1)));
		Statement all = new Statement();
		all.setNamespace(NS);
		all.setSetName(SET);
		client.execute(null, all, "tour", "add", Value.get("visits"), Value.get(1)).waitTillComplete(50);
		same(1L, client.get(null, key(7)).getLong("visits"));
		client.removeUdf(null, "tour.lua");
	}

	private static void async(EventLoop loop) throws Exception {
		CompletableFuture<Record> read = new CompletableFuture<>();
		client.get(loop, new RecordListener() {
			@Override public void onSuccess(Key key, Record record) { read.complete(record); }
			@Override public void onFailure(AerospikeException error) { read.completeExceptionally(error); }
		}, null, key(7));
		same(7L, read.get(10, TimeUnit.SECONDS).getLong("n"));
	}

	private static Key key(Object of) {
		return new Key(NS, SET, Value.get(of));
	}

	private static Statement by(Filter filter) {
		Statement statement = new Statement();
		statement.setFilter(filter);
		statement.setNamespace(NS);
		statement.setSetName(SET);
		return statement;
	}

	private static int count(QueryPolicy policy, Statement statement) {
		statement.setNamespace(NS);
		statement.setSetName(SET);
		int records = 0;
		try (RecordSet found = client.query(policy, statement)) {
			while (found.next()) records++;
		}
		return records;
	}

	private static void same(Object expected, Object found) {
		if (!Objects.equals(expected, found)) throw new AssertionError("expected " + expected + ", found " + found);
	}

	private static void fails(int code, Runnable what) {
		try {
			what.run();
		} catch (AerospikeException error) {
			same(code, error.getResultCode());
			return;
		}
		throw new AssertionError("expected code " + code);
	}
}
