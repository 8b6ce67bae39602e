// Reads the published types of the npm package `stripe` and writes what a request may contain, and which fields an answer has,
// for the calls that payonce makes or may make. Facts only: names, types, enumerations, and which are required.
//   node scripts/stripe-contract.mjs node_modules/stripe > contract.json
// `make contract` runs it.
import ts from 'typescript';
import fs from 'node:fs';
import path from 'node:path';

const root = process.argv[2];
const dir = path.join(root, 'esm');
const calls = {
  'POST /v1/payment_methods': ['PaymentMethods', 'PaymentMethodCreateParams', ['card', 'billing_details', 'metadata', 'type']],
  'POST /v1/payment_intents': ['PaymentIntents', 'PaymentIntentCreateParams'],
  'POST /v1/payment_intents/{id}': ['PaymentIntents', 'PaymentIntentUpdateParams'],
  'POST /v1/payment_intents/{id}/confirm': ['PaymentIntents', 'PaymentIntentConfirmParams'],
  'POST /v1/payment_intents/{id}/capture': ['PaymentIntents', 'PaymentIntentCaptureParams'],
  'POST /v1/payment_intents/{id}/cancel': ['PaymentIntents', 'PaymentIntentCancelParams'],
  'GET /v1/payment_intents/{id}': ['PaymentIntents', 'PaymentIntentRetrieveParams'],
  'GET /v1/payment_intents': ['PaymentIntents', 'PaymentIntentListParams'],
  'GET /v1/payment_intents/search': ['PaymentIntents', 'PaymentIntentSearchParams'],
  'POST /v1/refunds': ['Refunds', 'RefundCreateParams'],
  'GET /v1/refunds': ['Refunds', 'RefundListParams'],
  'GET /v1/refunds/{id}': ['Refunds', 'RefundRetrieveParams'],
  'GET /v1/events': ['Events', 'EventListParams'],
  'GET /v1/charges': ['Charges', 'ChargeListParams'],
  'GET /v1/balance_transactions': ['BalanceTransactions', 'BalanceTransactionListParams'],
  'GET /v1/disputes': ['Disputes', 'DisputeListParams'],
};
const answers = { payment_intent: ['PaymentIntents', 'PaymentIntent'], refund: ['Refunds', 'Refund'], payment_method: ['PaymentMethods', 'PaymentMethod'], charge: ['Charges', 'Charge'], dispute: ['Disputes', 'Dispute'] };
const files = [...new Set(Object.values(calls).concat(Object.values(answers)).map(([f]) => path.join(dir, 'resources', f + '.d.ts'))), path.join(dir, 'shared.d.ts')].filter((f) => fs.existsSync(f));
const program = ts.createProgram(files, { noResolve: false, skipLibCheck: true, moduleResolution: ts.ModuleResolutionKind.Bundler, module: ts.ModuleKind.ESNext });
const checker = program.getTypeChecker();
const find = (file, name) => {
  const source = program.getSourceFile(path.join(dir, 'resources', file + '.d.ts'));
  let found;
  ts.forEachChild(source, (n) => { if (ts.isInterfaceDeclaration(n) && n.name.text === name) found ??= checker.getTypeAtLocation(n.name); });
  return found;
};
const parts = (type) => (type.isUnion() ? type.types : [type]);
function describe(type) {
  const out = { kinds: new Set(), values: new Set(), objects: [] };
  for (const t of parts(type)) {
    if (t.flags & (ts.TypeFlags.Undefined | ts.TypeFlags.Null)) out.kinds.add('null');
    else if (t.isStringLiteral()) (t.value === '' ? out.kinds.add('empty') : (out.kinds.add('string'), out.values.add(t.value)));
    else if (t.flags & ts.TypeFlags.StringLike) out.kinds.add('string');
    else if (t.flags & ts.TypeFlags.NumberLike) out.kinds.add('number');
    else if (t.flags & ts.TypeFlags.BooleanLike) out.kinds.add('boolean');
    else if (checker.isArrayType(t)) { out.kinds.add('array'); out.element = describe(checker.getTypeArguments(t)[0]); }
    else if (t.isIntersection()) out.kinds.add('string'); // an open enumeration
    else if (t.flags & ts.TypeFlags.Object) { out.kinds.add('object'); out.objects.push(t); }
  }
  return out;
}
function walk(type, prefix, depth, into, only) {
  for (const [k, info] of checker.getIndexInfosOfType(type).entries()) into[`${prefix}[*]`] = { type: ['string'] };
  for (const p of checker.getPropertiesOfType(type)) {
    if (only && !only.includes(p.name)) continue;
    const decl = p.valueDeclaration ?? p.declarations?.[0];
    const d = describe(checker.getTypeOfSymbolAtLocation(p, decl));
    const name = prefix ? `${prefix}[${p.name}]` : p.name;
    const entry = { type: [...d.kinds].filter((k) => k !== 'null') };
    if (!(p.flags & ts.SymbolFlags.Optional)) entry.required = true;
    const values = [...d.values, ...(d.element ? d.element.values : [])].sort();
    if (values.length) entry.values = values;
    into[name] = entry;
    const objects = d.objects.concat(d.element?.objects ?? []);
    if (depth > 0) for (const o of objects) walk(o, d.element?.objects.includes(o) ? `${name}[]` : name, depth - 1, into);
  }
  return into;
}
const out = { package: 'stripe ' + fs.readFileSync(path.join(root, 'VERSION'), 'utf8').trim(), apiVersion: /ApiVersion = '([^']+)'/.exec(fs.readFileSync(path.join(dir, 'apiVersion.js'), 'utf8'))[1], requests: {}, answers: {} };
for (const [call, [file, name, only]] of Object.entries(calls)) {
  const type = find(file, name);
  if (!type) { console.error('missing', call, name); continue; }
  const wide = walk(type, '', 0, {}, only);
  const kept = Object.keys(wide).filter((k) => !['payment_method_options', 'payment_method_data', 'mandate_data', 'transfer_data', 'amount_details', 'payment_details', 'hooks', 'radar_options', 'level3'].includes(k));
  const deep = walk(type, '', 2, {}, kept);
  if (wide.payment_method_options) {
    const o = checker.getPropertiesOfType(type).find((p) => p.name === 'payment_method_options');
    for (const obj of describe(checker.getTypeOfSymbolAtLocation(o, o.valueDeclaration)).objects) Object.assign(deep, { payment_method_options: { type: ['object'] } }, walk(obj, 'payment_method_options', 2, {}, ['card']));
  }
  out.requests[call] = deep;
}
for (const [object, [file, name]] of Object.entries(answers)) {
  const type = find(file, name);
  const only = { payment_intent: null, refund: null, payment_method: ['id', 'object', 'type', 'card', 'customer', 'billing_details', 'livemode', 'metadata', 'created'], charge: null, dispute: null }[object];
  out.answers[object] = walk(type, '', 0, {}, only);
  if (object === 'payment_intent') Object.assign(out.answers[object], walk(type, '', 1, {}, ['last_payment_error', 'next_action', 'amount_details']));
  if (object === 'payment_method') Object.assign(out.answers[object], walk(type, '', 1, {}, ['card', 'billing_details']));
}
const events = path.join(dir, 'resources', 'Events.d.ts');
out.events = [...new Set([...fs.readFileSync(events, 'utf8').matchAll(/type: '([a-z_.]+)'/g)].map((m) => m[1]))].filter((t) => /^(payment_intent|charge|refund|payment_method)\./.test(t)).sort();
process.stdout.write(JSON.stringify(out, null, 1) + '\n');
